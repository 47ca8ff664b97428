//! Which cause does each effect belong to? Sorts a partition's outputs into in order, out of order, doubled and
//! unknown.
//!
//! Causes and effects are compared by an identity that both carry. As long as both run in step nothing is looked up;
//! after a difference the effect's identity finds its cause, and the walk goes on behind it. So one lost record is one
//! loss, not a shift of everything after it.

use std::collections::HashMap;
use std::hash::Hash;

/// What one effect is. The number is the place of its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Its cause comes after the causes of all effects before it.
    InOrder(usize),
    /// Its cause comes before one whose effect was seen earlier.
    OutOfOrder(usize),
    /// Its cause has had its effect already.
    Doubled(usize),
    /// It has no cause.
    Unknown,
}

/// The place of every effect, and the causes that have none.
pub(super) fn align<I: Eq + Hash>(causes: &[I], effects: &[I]) -> (Vec<Place>, Vec<usize>) {
    let mut walk = Walk { causes, seen: vec![false; causes.len()], next: 0, index: None };
    let places = effects.iter().map(|effect| walk.place(effect)).collect();
    let lost = (0..causes.len()).filter(|at| !walk.seen[*at]).collect();
    (places, lost)
}

struct Walk<'a, I> {
    causes: &'a [I],
    seen: Vec<bool>,
    /// Behind the furthest cause whose effect was seen.
    next: usize,
    /// Built at the first difference.
    index: Option<HashMap<&'a I, Vec<usize>>>,
}

impl<I: Eq + Hash> Walk<'_, I> {
    fn place(&mut self, effect: &I) -> Place {
        if self.causes.get(self.next) == Some(effect) {
            return self.take(self.next);
        }
        let index = self.index.get_or_insert_with(|| places(self.causes));
        let Some(candidates) = index.get(effect) else { return Place::Unknown };
        match candidates.iter().copied().find(|at| !self.seen[*at]) {
            Some(at) => self.take(at),
            None => Place::Doubled(*candidates.last().expect("an identity in the index stands somewhere")),
        }
    }

    fn take(&mut self, at: usize) -> Place {
        self.seen[at] = true;
        if at < self.next {
            return Place::OutOfOrder(at);
        }
        self.next = at + 1;
        Place::InOrder(at)
    }
}

fn places<I: Eq + Hash>(causes: &[I]) -> HashMap<&I, Vec<usize>> {
    let mut places: HashMap<&I, Vec<usize>> = HashMap::with_capacity(causes.len());
    for (at, cause) in causes.iter().enumerate() {
        places.entry(cause).or_default().push(at);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::Place::{Doubled, InOrder, OutOfOrder, Unknown};
    use super::align;

    #[test]
    fn a_loss_does_not_shift_what_follows() {
        assert_eq!(align(&[1, 2, 3, 4], &[1, 3, 4]), (vec![InOrder(0), InOrder(2), InOrder(3)], vec![1]));
    }

    #[test]
    fn a_swap_is_one_record_out_of_order() {
        assert_eq!(align(&[1, 2, 3], &[2, 1, 3]), (vec![InOrder(1), OutOfOrder(0), InOrder(2)], vec![]));
    }

    #[test]
    fn a_replayed_stretch_is_doubled() {
        assert_eq!(align(&[1, 2, 3], &[1, 2, 1, 2, 3]).0, [InOrder(0), InOrder(1), Doubled(0), Doubled(1), InOrder(2)]);
    }

    #[test]
    fn equal_causes_have_an_effect_each() {
        assert_eq!(align(&[7, 7, 8], &[7, 7, 7, 9]), (vec![InOrder(0), InOrder(1), Doubled(1), Unknown], vec![2]));
    }
}
