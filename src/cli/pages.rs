//! Lists page by page: as much as was asked for is printed as it is read, and whoever sees a part is told so.

use super::args::{Limit, Machine};
use super::{Done, Failure, print};

/// Lines of a list for a person who didn't say how many.
const SCREEN: usize = 50;
/// Rows read at once.
const PAGE: usize = 500;

impl Limit {
    /// As many lines as are wanted: a program that doesn't say gets all, so that none is missing from what it reckons.
    #[must_use]
    pub fn of(self, machine: Machine) -> usize {
        match self.given {
            Some(0) => usize::MAX,
            Some(number) => number,
            None if machine.json => usize::MAX,
            None => SCREEN,
        }
    }
}

/// How much of a list was shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    pub number: usize,
    /// There are more.
    pub more: bool,
}

/// Shows up to `limit` entries. `read` gets the last entry that was shown and how many are wanted behind it.
pub fn pages<T>(
    limit: usize,
    mut read: impl FnMut(Option<&T>, usize) -> Result<Vec<T>, Failure>,
    mut show: impl FnMut(&T) -> Done,
) -> Result<Shown, Failure> {
    let (mut number, mut last) = (0, None);
    loop {
        let left = limit - number;
        // One beyond what is wanted tells that there is more.
        let wanted = PAGE.min(left.saturating_add(1));
        let mut page = read(last.as_ref(), wanted)?;
        // Not that it isn't full: rows that can't be read are missing from it.
        let ended = page.is_empty();
        let more = page.len() > left;
        page.truncate(left);
        page.iter().try_for_each(&mut show)?;
        number += page.len();
        last = page.pop().or(last);
        if more || ended {
            return Ok(Shown { number, more });
        }
    }
}

impl Shown {
    /// To a person, that there is nothing, or more than was shown.
    pub fn tell(&self, limit: Limit, machine: Machine, what: &str) -> Done {
        if self.number == 0 && !machine.json {
            return print::line(format_args!("no {what}"));
        }
        if self.more && limit.given.is_none() {
            print::remark(&format!("{} {what} shown, there are more: -n 0 shows all, -n N so many", self.number));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of `0..all`.
    fn shown(all: usize, limit: usize) -> (Vec<usize>, bool) {
        let mut seen = Vec::new();
        let read = |last: Option<&usize>, wanted: usize| {
            let from = last.map_or(0, |last| last + 1);
            Ok((from..all).take(wanted).collect())
        };
        let shown = pages(limit, read, |number| {
            seen.push(*number);
            Ok(())
        });
        (seen, shown.unwrap().more)
    }

    #[test]
    fn pages_come_whole_and_end_where_they_should() {
        for all in [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE] {
            for limit in [1, 50, PAGE - 1, PAGE, PAGE + 1, usize::MAX] {
                let (seen, more) = shown(all, limit);
                assert_eq!(seen, (0..all.min(limit)).collect::<Vec<_>>(), "{all} {limit}");
                assert_eq!(more, all > limit, "{all} {limit}");
            }
        }
    }
}
