//! What `random_id` is drawn from: an argument of the run, as the time is, so that rules stay pure.
//!
//! The caller's secret makes ids that nobody foresees; without one (tests, dry runs) the same call draws the same ids.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use ring::hmac::{HMAC_SHA256, Key, sign};

/// A secret, and which of the calls that share it this is.
#[derive(Clone, Copy, Default)]
pub struct Seed {
    secret: [u8; 32],
    number: u64,
    /// What it was narrowed to.
    part: u64,
}

impl Seed {
    #[must_use]
    pub fn new(secret: [u8; 32], number: u64) -> Self {
        Self { secret, number, part: 0 }
    }

    /// One of its own for `what`.
    #[must_use]
    pub fn of(self, what: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        (self.part, what).hash(&mut hasher);
        Self { part: hasher.finish(), ..self }
    }

    /// A number for the `nth` question of the call that this seed is of.
    #[must_use]
    pub fn mark(&self, nth: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.number, self.part, nth).hash(&mut hasher);
        hasher.finish()
    }

    /// The `nth` draw.
    #[must_use]
    pub fn draw(&self, nth: u64) -> [u8; 32] {
        let mut about = Vec::with_capacity(24);
        for number in [self.number, self.part, nth] {
            about.extend_from_slice(&number.to_be_bytes());
        }
        let mut drawn = [0; 32];
        drawn.copy_from_slice(sign(&Key::new(HMAC_SHA256, &self.secret), &about).as_ref());
        drawn
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_by_secret_call_part_and_turn_and_are_otherwise_the_same() {
        let draws = [
            Seed::default().draw(1),
            Seed::default().draw(2),
            Seed::new([1; 32], 0).draw(1),
            Seed::new([0; 32], 1).draw(1),
            Seed::default().of(&"a").draw(1),
            Seed::default().of(&"b").draw(1),
            Seed::default().of(&"a").of(&"b").draw(1),
        ];
        for (at, draw) in draws.iter().enumerate() {
            assert!(!draws[..at].contains(draw), "{at}");
        }
        assert_eq!(Seed::new([7; 32], 3).of(&"a").draw(5), Seed::new([7; 32], 3).of(&"a").draw(5));
    }
}
