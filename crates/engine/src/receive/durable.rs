//! [`Durable`]: up to which LSN everything is in every repository. Pure.
//!
//! Pieces and segments become durable in any order. What is reported to the server is only the end of the part without
//! a hole.

use std::collections::BTreeMap;

use holdfast_pgtypes::Lsn;

/// The durable WAL from some LSN on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Durable {
    reached: Lsn,
    /// Ranges after a hole, by their start.
    ahead: BTreeMap<Lsn, Lsn>,
}

impl Durable {
    /// Everything before this LSN is durable.
    pub(super) fn from(reached: Lsn) -> Self {
        Self { reached, ahead: BTreeMap::new() }
    }

    /// Adds a range that has become durable.
    pub(super) fn add(&mut self, start: Lsn, end: Lsn) {
        if end > self.reached {
            let known = self.ahead.entry(start).or_insert(end);
            *known = end.max(*known);
        }
        while let Some(next) = self.ahead.first_entry().filter(|next| *next.key() <= self.reached) {
            self.reached = self.reached.max(next.remove());
        }
    }

    /// The first byte that may not be durable.
    pub(super) fn reached(&self) -> Lsn {
        self.reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_no_hole_before_it_is_reached() {
        let lsn = Lsn::new;
        for (ranges, expected) in [
            (vec![], 100),
            (vec![(100, 150)], 150),
            (vec![(150, 200)], 100),
            (vec![(150, 200), (100, 150)], 200),
            (vec![(150, 160), (150, 200), (100, 155)], 200),
            // Overlaps, what is known already, and a hole that stays.
            (vec![(90, 120), (110, 130), (100, 110), (131, 140)], 130),
            (vec![(131, 140), (120, 131), (150, 160), (90, 120)], 140),
        ] {
            let mut durable = Durable::from(lsn(100));
            for (start, end) in &ranges {
                durable.add(lsn(*start), lsn(*end));
            }
            assert_eq!(durable.reached(), lsn(expected), "{ranges:?}");
        }
    }
}
