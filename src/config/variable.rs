//! `MAILWORKER__LIMITS__MESSAGE_SIZE=…`: the environment laid over the tree of the file, one value a variable.
//!
//! Pure. Input: a variable and its value. Output: a node of the tree that remembers the variable, or a finding about it.

use super::tree::{Kind, Node, NodeId, Origin, Tree, is_source};

/// The prefix of variables that set a value.
pub const PREFIX: &str = "MAILWORKER__";

impl Tree<'_> {
    /// Sets one value by its variable: `MAILWORKER__LIMITS__MESSAGE_SIZE`.
    pub fn set(&mut self, variable: &str, value: &str) {
        let path = variable.strip_prefix(PREFIX).unwrap_or_default();
        let segments: Vec<&str> = path.split("__").collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            let help = Some(format!("sections and keys are parted by two underscores: {PREFIX}LIMITS__MESSAGE_SIZE"));
            self.report(&Origin::Variable(variable.to_owned()), "names no key", help);
            return;
        }
        let mut next = self.next;
        let mut fresh = || {
            next += 1;
            next
        };
        let way = Way { variable, within: "", in_vars: false };
        let refused = set_in(&mut self.root, &segments, value, way, &mut fresh).err();
        self.next = next;
        if let Some((message, help)) = refused {
            self.report(&Origin::Variable(variable.to_owned()), &message, help);
        }
    }
}

type Refusal = (String, Option<String>);

/// Where in the tree a variable leads.
#[derive(Clone, Copy)]
struct Way<'v> {
    variable: &'v str,
    /// The key of the table that is looked into.
    within: &'v str,
    /// Below `[vars]`: names are the admin's own, and a value keeps the type of the one that it replaces.
    in_vars: bool,
}

fn set_in(
    node: &mut Node,
    segments: &[&str],
    value: &str,
    way: Way<'_>,
    fresh: &mut dyn FnMut() -> NodeId,
) -> Result<(), Refusal> {
    let variable = way.variable;
    let origin = Origin::Variable(variable.to_owned());
    let Some((segment, rest)) = segments.split_first() else {
        if matches!(node.kind, Kind::Array(_) | Kind::Table(_)) {
            let help = Some(format!("it sets one value: {variable}__KEY, or {variable}__0 for the first of a list"));
            return Err(("sets a whole section or list".to_owned(), help));
        }
        let kind = if way.in_vars { of_the_same_type(&node.kind, value)? } else { Kind::Text(value.to_owned()) };
        *node = Node { id: fresh(), key: origin.clone(), origin, kind };
        return Ok(());
    };
    let mut make = || {
        let kind = match rest.first() {
            None => Kind::Text(String::new()),
            Some(next) if next.bytes().all(|byte| byte.is_ascii_digit()) => Kind::Array(Vec::new()),
            Some(_) => Kind::Table(Vec::new()),
        };
        Node { id: fresh(), key: origin.clone(), origin: origin.clone(), kind }
    };
    let child = match &mut node.kind {
        Kind::Table(entries) => {
            let known = entries.iter().position(|(name, _)| name.eq_ignore_ascii_case(segment));
            let at = known.unwrap_or(entries.len());
            if known.is_none() {
                let name = if way.in_vars { (*segment).to_owned() } else { segment.to_ascii_lowercase() };
                entries.push((name, make()));
            }
            entries.get_mut(at)
        }
        Kind::Array(items) => {
            let at: usize = segment.parse().map_err(|_| {
                (format!("names `{segment}` where a list's index belongs"), Some("0 is the first".to_owned()))
            })?;
            if at > items.len() {
                let known = items.len();
                return Err((format!("sets element {at} of a list of {known}"), Some("0 is the first".to_owned())));
            }
            if at == items.len() {
                items.push(make());
            }
            let child = items.get_mut(at);
            return child.map_or(Ok(()), |child| set_in(child, rest, value, Way { within: "", ..way }, fresh));
        }
        _ => return Err(("goes on below a key that holds one value".to_owned(), None)),
    };
    let Some((name, child)) = child else { return Ok(()) };
    if is_source(way.within, name) && !way.in_vars && !rest.is_empty() {
        child.kind = Kind::Table(Vec::new());
    }
    let way = Way { within: name, in_vars: way.in_vars || name == "vars", ..way };
    set_in(child, rest, value, way, fresh)
}

/// A script that reckons with a number must not find a string in its place.
fn of_the_same_type(replaced: &Kind, value: &str) -> Result<Kind, Refusal> {
    let word = value.trim();
    match replaced {
        Kind::Boolean(_) => match word {
            "true" | "1" => Ok(Kind::Boolean(true)),
            "false" | "0" => Ok(Kind::Boolean(false)),
            _ => Err(("sets true or false to something else".to_owned(), Some("true, false, 1 or 0".to_owned()))),
        },
        Kind::Integer(_) | Kind::Float(_) => {
            let whole = word.parse().ok().map(Kind::Integer);
            let broken = || word.parse().ok().filter(|number: &f64| number.is_finite()).map(Kind::Float);
            let help = Some("a number, as in the file".to_owned());
            whole.or_else(broken).ok_or_else(|| ("sets a number to something else".to_owned(), help))
        }
        _ => Ok(Kind::Text(value.to_owned())),
    }
}
