//! The word count, computed again: each word of the input is counted once, and its counts run from 1 up, one by one.
//!
//! Lines are UTF-8 words with spaces between. A count is an i64, big-endian, with the word as its key and the timestamp of
//! the line that the word stood in.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{State, value_of_i64};
use super::verdict::{Kind, Verdict};
use super::{LogRecord, PartitionLog};

/// Of each word the timestamps of the lines it stood in, as often as it did.
type Occurrences = BTreeMap<Vec<u8>, Vec<i64>>;

/// Checks the counts of all words against the lines.
pub fn check_word_count(lines: &[PartitionLog], counts: &[PartitionLog]) -> Verdict {
    let mut verdict = Verdict::new("words", "counts");
    let occurrences = occurrences(lines);
    verdict.inputs = occurrences.values().map(|times| times.len() as u64).sum();
    let mut found: BTreeMap<&[u8], Vec<(String, &LogRecord)>> = BTreeMap::new();
    for log in counts {
        for record in &log.records {
            verdict.outputs += 1;
            let at = format!("{}@{}", log.partition, record.offset);
            found.entry(record.key.as_deref().unwrap_or_default()).or_default().push((at, record));
        }
    }
    for (word, times) in &occurrences {
        check_word(&mut verdict, word, times, found.remove(&word[..]).unwrap_or_default());
    }
    for (at, record) in found.into_values().flatten() {
        verdict.violate(Kind::Wrong, at, || ("a word of the input".into(), record.key_text()));
    }
    verdict
}

fn check_word(verdict: &mut Verdict, word: &[u8], times: &[i64], counts: Vec<(String, &LogRecord)>) {
    let (mut seen, mut last, mut counted_at) = (BTreeSet::new(), 0, Vec::new());
    for (at, record) in counts {
        let count = record.value.as_deref().and_then(|value| value.try_into().ok()).map_or(0, i64::from_be_bytes);
        let found = || format!("{count} for {}", record.key_text());
        if !(1..=times.len() as i64).contains(&count) {
            verdict.violate(Kind::Wrong, at, || (format!("a count from 1 to {}", times.len()), found()));
        } else if !seen.insert(count) {
            verdict.violate(Kind::Doubled, at, || ("each count once".into(), found()));
        } else if count < last {
            verdict.violate(Kind::Reordered, at, || (format!("a count above {last}"), found()));
        }
        last = last.max(count);
        counted_at.push(record.timestamp);
    }
    for count in (1..=times.len() as i64).filter(|count| !seen.contains(count)) {
        verdict.violate(Kind::Lost, word.escape_ascii(), || (format!("the count {count}"), "nothing".into()));
    }
    counted_at.sort_unstable();
    if seen.len() == times.len() && counted_at != times {
        let expected = || ("the timestamps of the word's lines".into(), "others".into());
        verdict.violate(Kind::Wrong, word.escape_ascii(), expected);
    }
}

/// The state that the lines lead to.
pub fn expected_word_counts(lines: &[PartitionLog]) -> State {
    occurrences(lines).into_iter().map(|(word, times)| (word, value_of_i64(times.len() as i64))).collect()
}

/// How many words the lines have.
pub fn words_of(lines: &[PartitionLog]) -> u64 {
    occurrences(lines).values().map(|times| times.len() as u64).sum()
}

fn occurrences(lines: &[PartitionLog]) -> Occurrences {
    let mut occurrences = Occurrences::new();
    for line in lines.iter().flat_map(|log| &log.records) {
        for word in line.value.as_deref().unwrap_or_default().split(|byte| *byte == b' ') {
            occurrences.entry(word.to_vec()).or_default().push(line.timestamp);
        }
    }
    for times in occurrences.values_mut() {
        times.sort_unstable();
    }
    occurrences
}
