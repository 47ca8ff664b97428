//! A range over the tasks of a store that run here: its bounds, where a page begins and where it ends.
//!
//! A range goes through the tasks by partition, and in key order within each. A page ends after so many rows, bytes or
//! milliseconds, whatever comes first, and names where the next one begins.

use std::ops::{Bound, ControlFlow};
use std::time::{Duration, Instant};

use processor_core::ids::TaskId;
use processor_core::store::{BaseError, StoreJson};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::elsewhere::Part;
use super::stores::Store;

/// Rows of a page, if nothing else is asked for.
const ROWS_DEFAULT: usize = 100;
/// The most rows of a page.
pub(super) const ROWS_MAX: usize = 1_000;
/// The most stored bytes of a page; the row that passes it is the last one.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// How long a page is read for.
const PAGE_TIME_MAX: Duration = Duration::from_millis(500);
/// The largest stored value that is shown.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// How much of a larger one is kept.
const BEGINNING_BYTES: usize = 1 << 10;
/// How many entries are counted between two looks at the time.
const COUNTED_BETWEEN_LOOKS: u64 = 1 << 10;

/// What a range may be asked for with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The first key.
    from: Option<String>,
    /// The key behind the last one.
    to: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    reverse: bool,
    /// What the page before called `next`.
    cursor: Option<String>,
    /// Of the task of this partition only.
    pub(super) partition: Option<i32>,
    /// How many entries there are, instead of what they are.
    #[serde(default)]
    pub(super) count: bool,
}

/// An entry as it is stored.
struct Row {
    task: TaskId,
    key: Vec<u8>,
    /// Only its beginning where it is too large to be shown.
    value: Vec<u8>,
    value_bytes: usize,
}

/// The bounds of a range as stored bytes, and where in it the page begins.
pub(super) struct Scan {
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    pub(super) reverse: bool,
    rows_max: usize,
    begins: Option<Cursor>,
}

/// The row that the page before ended with.
struct Cursor {
    partition: i32,
    key: Vec<u8>,
}

/// What a page has collected: bytes, so that a store in memory, which nobody writes while it is read, is read quickly.
struct Page {
    rows: Vec<Row>,
    bytes: usize,
    until: Instant,
    next: Option<String>,
}

/// One page of a range: `(rows, next)`.
///
/// # Errors
/// The state cannot be read.
pub(super) fn rows(store: &Store<'_>, scan: &Scan, parts: &[Part]) -> Result<(Vec<Value>, Option<String>), BaseError> {
    let mut page = Page { rows: Vec::new(), bytes: 0, until: Instant::now() + PAGE_TIME_MAX, next: None };
    for part in parts.iter().filter(|part| scan.reaches(part)) {
        page.read(store, scan, part)?;
        if page.next.is_some() {
            break;
        }
    }
    Ok((page.rows.iter().map(|row| row.shown(store)).collect(), page.next))
}

/// How many entries of each task lie in the range, as far as there is time: `(counts, next)`.
///
/// # Errors
/// The state cannot be read.
pub(super) fn counts(
    store: &Store<'_>,
    scan: &Scan,
    parts: &[Part],
) -> Result<(Vec<Value>, Option<String>), BaseError> {
    let until = Instant::now() + PAGE_TIME_MAX;
    let (mut counts, mut next) = (Vec::new(), None);
    for part in parts.iter().filter(|part| scan.reaches(part)) {
        let (from, to) = scan.bounds(part);
        let mut entries = 0_u64;
        part.state.range(store.index, from, to, scan.reverse, &mut |key, _| {
            entries += 1;
            if !entries.is_multiple_of(COUNTED_BETWEEN_LOOKS) || Instant::now() < until {
                return ControlFlow::Continue(());
            }
            next = Some(Cursor { partition: part.task.partition.get(), key: key.to_vec() }.to_text());
            ControlFlow::Break(())
        })?;
        counts.push(json!({ "task": part.task.to_string(), "entries": entries }));
        if next.is_some() {
            break;
        }
    }
    Ok((counts, next))
}

/// An entry as answers show it.
pub(super) fn entry(store: &Store<'_>, task: &TaskId, key: &[u8], value: &[u8]) -> Value {
    Row::new(task, key, value).shown(store)
}

impl Page {
    fn read(&mut self, store: &Store<'_>, scan: &Scan, part: &Part) -> Result<(), BaseError> {
        let (from, to) = scan.bounds(part);
        part.state.range(store.index, from, to, scan.reverse, &mut |key, value| {
            let row = Row::new(&part.task, key, value);
            self.bytes += row.key.len() + row.value.len();
            self.rows.push(row);
            let is_full = self.rows.len() >= scan.rows_max || self.bytes >= PAGE_BYTES_MAX;
            if !is_full && Instant::now() < self.until {
                return ControlFlow::Continue(());
            }
            self.next = Some(Cursor { partition: part.task.partition.get(), key: key.to_vec() }.to_text());
            ControlFlow::Break(())
        })
    }
}

impl Row {
    fn new(task: &TaskId, key: &[u8], value: &[u8]) -> Self {
        let kept = if value.len() > VALUE_BYTES_MAX { &value[..BEGINNING_BYTES] } else { value };
        Self { task: task.clone(), key: key.to_vec(), value: kept.to_vec(), value_bytes: value.len() }
    }

    /// As JSON. What cannot be shown says why, and does not spoil the others.
    fn shown(&self, store: &Store<'_>) -> Value {
        let value = if self.value.len() == self.value_bytes {
            store.view.value_or_why(&self.value)
        } else {
            let why = format!("the value has {} bytes, and at most {VALUE_BYTES_MAX} are shown", self.value_bytes);
            StoreJson::unreadable(why, &self.value, self.value_bytes)
        };
        json!({ "task": self.task.to_string(), "key": store.view.key_or_why(&self.key), "value": value })
    }
}

impl Scan {
    pub(super) fn of(store: &Store<'_>, asked: &Asked) -> Result<Self, Refusal> {
        let rows_max = asked.limit.unwrap_or(ROWS_DEFAULT);
        if !(1..=ROWS_MAX).contains(&rows_max) {
            return Err(Refusal::bad_request(format!(
                "limit={rows_max} is not between 1 and {ROWS_MAX}: ask for less, and for the next page with cursor=<next>"
            )));
        }
        let bound = |text: &Option<String>| text.as_deref().map(|text| store.parsed(text)).transpose();
        let (from, to) = (bound(&asked.from)?, bound(&asked.to)?);
        if let (Some(from), Some(to)) = (&from, &to)
            && from >= to
        {
            return Err(Refusal::bad_request(
                "nothing lies between from and to: from is the first key, to is the key behind the last one",
            ));
        }
        let begins = asked.cursor.as_deref().map(Cursor::parse).transpose()?;
        if begins.as_ref().is_some_and(|cursor| {
            from.as_ref().is_some_and(|from| cursor.key < *from) || to.as_ref().is_some_and(|to| cursor.key >= *to)
        }) {
            return Err(Refusal::bad_request(
                "the cursor lies outside of from and to: pass it on together with the same from, to and reverse",
            ));
        }
        Ok(Self {
            from: from.map_or(Bound::Unbounded, Bound::Included),
            to: to.map_or(Bound::Unbounded, Bound::Excluded),
            reverse: asked.reverse,
            rows_max,
            begins,
        })
    }

    /// Whether anything of this part can lie behind the cursor.
    fn reaches(&self, part: &Part) -> bool {
        let partition = part.task.partition.get();
        self.begins.as_ref().is_none_or(|cursor| {
            if self.reverse { partition <= cursor.partition } else { partition >= cursor.partition }
        })
    }

    /// The bounds within a part.
    fn bounds(&self, part: &Part) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let (mut from, mut to) = (as_slice(&self.from), as_slice(&self.to));
        if let Some(cursor) = self.begins.as_ref().filter(|cursor| cursor.partition == part.task.partition.get()) {
            *(if self.reverse { &mut to } else { &mut from }) = Bound::Excluded(&cursor.key);
        }
        (from, to)
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// A cursor is `<partition>.<key in hexadecimal digits>`.
impl Cursor {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let parsed = text.split_once('.').and_then(|(partition, key)| {
            let digits = |at: usize| u8::from_str_radix(key.get(at..at + 2)?, 16).ok();
            let is_hex = key.len().is_multiple_of(2) && key.bytes().all(|digit| digit.is_ascii_hexdigit());
            let key = is_hex.then(|| (0..key.len()).step_by(2).map(digits).collect::<Option<Vec<u8>>>())??;
            Some(Self { partition: partition.parse().ok()?, key })
        });
        parsed.ok_or_else(|| Refusal::bad_request("the cursor is none: pass on what the page before called 'next'"))
    }

    fn to_text(&self) -> String {
        let digits = self.key.iter().map(|byte| format!("{byte:02x}"));
        format!("{}.{}", self.partition, digits.collect::<String>())
    }
}
