//! How answers look: tables without lines, aligned, for people; one JSON document for programs.

use std::io::{self, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use processor_core::ids::Timestamp;
use serde_json::Value;

use super::CommandError;

/// Writes a table: the names of its columns, then its rows.
pub(super) fn table(out: &mut impl Write, columns: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(columns);
    for row in rows {
        table.add_row(row);
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim())?;
    }
    Ok(())
}

/// Writes a JSON document.
pub(super) fn json(out: &mut impl Write, document: &Value) -> Result<(), CommandError> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    writeln!(out)?;
    Ok(())
}

/// A moment, as RFC 3339 writes it in UTC; what is no moment of the calendar stays a number.
pub(super) fn moment(timestamp: Timestamp) -> String {
    let moment = jiff::Timestamp::from_millisecond(timestamp.get());
    moment.map_or_else(|_| timestamp.to_string(), |moment| moment.to_string())
}

/// Bytes for people: JSON and other text as it is, the rest with escapes. Line ends are escaped, so a row is a line.
pub(super) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
        }
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// The first so many characters of a text, and a sign where there are more.
pub(super) fn shortened(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_have_no_blanks_at_the_end() {
        let mut out = Vec::new();
        let rows = vec![vec!["window".to_owned(), "7".to_owned()], vec!["w".to_owned(), "1000".to_owned()]];
        table(&mut out, &["STORE", "ENTRIES"], rows).expect("a list takes everything");
        let text = String::from_utf8(out).expect("it is text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].find("ENTRIES"), lines[1].find('7'));
        assert!(lines.iter().all(|line| line.trim_end() == *line), "{text:?}");
    }

    #[test]
    fn moments_and_bytes_are_readable() {
        assert_eq!(moment(Timestamp::new(1_500)), "1970-01-01T00:00:01.5Z");
        assert_eq!(moment(Timestamp::new(i64::MAX)), i64::MAX.to_string());
        assert_eq!(text("käse\n".as_bytes()), "käse\\n");
        assert_eq!(text(&[0, 255, b'a']), "\\x00\\xffa");
        assert_eq!(shortened("käse", 2), "kä…");
        assert_eq!(shortened("käse", 4), "käse");
    }
}
