//! Reading ahead: the keys of the records that wait are looked up together, before any of them is processed.
//!
//! A look-up of many keys in their order costs the base a fraction of as many single ones. What a record will look up is not
//! known, but mostly it is the record's own key. So it is tried where a batch had to read much, and given up for a while
//! where what was read ahead was not used.

use std::mem;

/// Of the records of a batch, one in this many has to need the base before its successor reads ahead.
const NEEDED: u64 = 8;
/// Fewer look-ups than this in a batch cost nothing worth saving.
const NEEDED_MIN: u64 = 16;
/// After so many batches it is tried again where it was of no use.
const PAUSE: u32 = 100;

/// What is known of how a store is read, and the keys to read ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Entries that the base was asked for, one by one, in this batch.
    pub(super) missed: u64,
    /// Entries that were read ahead in this batch,
    pub(super) warmed: u64,
    /// and those that were looked up since.
    pub(super) used: u64,
    /// The number of the record that the batch began behind.
    began_behind: u64,
    pays: bool,
    pause: u32,
    wanted: Vec<Wanted>,
    bytes: Vec<u8>,
    /// The entries of the records that come next: a hint, for an entry may have moved, and a record may look up another one.
    hints: Vec<usize>,
    /// The number of the record before them.
    hints_behind: u64,
}

/// No entry.
const UNKNOWN: usize = usize::MAX;

#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// The first bytes of its encoded key, and zeros behind a shorter one: mostly they tell the order.
    first: u128,
    entry: usize,
    /// Where its encoded key begins and ends.
    from: usize,
    to: usize,
}

impl Ahead {
    /// Whether it is worth it for the batch that begins.
    pub(super) fn pays(&self) -> bool {
        self.pays
    }

    /// A batch is over, with this record.
    pub(super) fn learn(&mut self, record: u64) {
        let records = record - mem::replace(&mut self.began_behind, record);
        let (missed, warmed, used) =
            (mem::take(&mut self.missed), mem::take(&mut self.warmed), mem::take(&mut self.used));
        let needed = missed + used;
        if used * 2 < warmed {
            self.pause = PAUSE;
        }
        self.pause = self.pause.saturating_sub(1);
        self.pays = self.pause == 0 && needed >= NEEDED_MIN && needed * NEEDED >= records;
    }

    /// What comes is of the records behind this one.
    pub(super) fn begin(&mut self, record: u64) {
        self.hints.clear();
        self.hints_behind = record;
    }

    /// The entry of the key of the `nth` record.
    pub(super) fn found(&mut self, nth: usize, entry: usize) {
        self.hints.resize(nth, UNKNOWN);
        self.hints.push(entry);
    }

    /// Where the key of a record may be.
    pub(super) fn hint(&self, record: u64) -> Option<usize> {
        let nth = usize::try_from(record.checked_sub(self.hints_behind)?.checked_sub(1)?).ok()?;
        self.hints.get(nth).copied()
    }

    /// Asks for an entry whose key `encode` writes.
    pub(super) fn want(&mut self, entry: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        let from = self.bytes.len();
        encode(&mut self.bytes);
        self.wanted.push(Wanted { first: first_of(&self.bytes[from..]), entry, from, to: self.bytes.len() });
    }

    /// Hands over what was asked for, each key once and in the order of their bytes, with their entries; and forgets it.
    pub(super) fn take<R>(&mut self, read: impl FnOnce(&[&[u8]], &[usize]) -> R) -> Option<R> {
        let Self { wanted, bytes, .. } = self;
        if wanted.is_empty() {
            return None;
        }
        let key = |wanted: &Wanted| &bytes[wanted.from..wanted.to];
        wanted.sort_unstable_by(|a, b| a.first.cmp(&b.first).then_with(|| key(a).cmp(key(b))));
        wanted.dedup_by_key(|wanted| wanted.entry);
        let keys: Vec<&[u8]> = wanted.iter().map(key).collect();
        let entries: Vec<usize> = wanted.iter().map(|wanted| wanted.entry).collect();
        let answer = read(&keys, &entries);
        wanted.clear();
        bytes.clear();
        Some(answer)
    }

    /// Everything that was read is forgotten; what was learned is not.
    pub(super) fn forget(&mut self) {
        self.wanted.clear();
        self.bytes.clear();
        self.hints.clear();
        (self.missed, self.warmed, self.used) = (0, 0, 0);
    }
}

/// The first bytes of a key, so that numbers compare as keys do, as far as they go.
fn first_of(key: &[u8]) -> u128 {
    let mut first = [0; 16];
    let len = key.len().min(first.len());
    first[..len].copy_from_slice(&key[..len]);
    u128::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(ahead: &mut Ahead, record: &mut u64, records: u64, (missed, warmed, used): (u64, u64, u64)) {
        (ahead.missed, ahead.warmed, ahead.used) = (missed, warmed, used);
        *record += records;
        ahead.learn(*record);
    }

    #[test]
    fn it_is_tried_where_much_is_read_and_kept_where_it_is_of_use() {
        let (mut ahead, mut record) = (Ahead::default(), 0);
        assert!(!ahead.pays());
        batch(&mut ahead, &mut record, 1_000, (20, 0, 0));
        assert!(!ahead.pays(), "nearly everything is known");
        batch(&mut ahead, &mut record, 1_000, (400, 0, 0));
        assert!(ahead.pays());
        batch(&mut ahead, &mut record, 1_000, (3, 500, 450));
        assert!(ahead.pays(), "what was read ahead would have been missed");
        batch(&mut ahead, &mut record, 10, (10, 0, 0));
        assert!(!ahead.pays(), "a few look-ups cost nothing");
    }

    #[test]
    fn what_is_of_no_use_is_given_up_for_a_while() {
        let (mut ahead, mut record) = (Ahead::default(), 0);
        batch(&mut ahead, &mut record, 1_000, (1_000, 0, 0));
        batch(&mut ahead, &mut record, 1_000, (1_000, 1_000, 10));
        assert!(!ahead.pays());
        let mut batches = 0;
        while !ahead.pays() {
            batch(&mut ahead, &mut record, 1_000, (1_000, 0, 0));
            batches += 1;
        }
        assert_eq!(batches, PAUSE - 1);
    }

    #[test]
    fn a_record_is_hinted_where_its_key_was_found() {
        let mut ahead = Ahead::default();
        assert_eq!(ahead.hint(1), None);
        ahead.begin(10);
        ahead.found(0, 7);
        ahead.found(2, 5); // nothing is known of the key of number 1
        assert_eq!(
            [10, 11, 12, 13, 14].map(|record| ahead.hint(record)),
            [None, Some(7), Some(UNKNOWN), Some(5), None]
        );
        ahead.begin(13);
        assert_eq!(ahead.hint(14), None);
    }

    #[test]
    fn keys_are_handed_over_once_and_in_order() {
        let mut ahead = Ahead::default();
        let long = "a key of more than sixteen bytes";
        for (entry, key) in
            [(7, "b"), (3, "c"), (5, &format!("{long}, b")), (7, "b"), (4, &format!("{long}, a")), (9, "a")]
        {
            ahead.want(entry, |bytes| bytes.extend_from_slice(key.as_bytes()));
        }
        for (entry, key) in [(1, &b"a\0"[..]), (2, b"")] {
            ahead.want(entry, |bytes| bytes.extend_from_slice(key));
        }
        let taken = ahead.take(|keys, entries| (keys.is_sorted(), entries.to_vec()));
        assert_eq!(taken, Some((true, vec![2, 9, 1, 4, 5, 7, 3])));
        assert_eq!(ahead.take(|_, _| ()), None);
    }
}
