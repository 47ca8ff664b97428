//! The changelog reader.

use anyhow::Result;
use processor_core::ids::ChangelogOffset;
use processor_runtime::kafka::{ChangelogReader, Isolation, TransactionalProducer};

use super::support::{Corner, SOON, read_until, send};

#[test]
fn the_end_is_what_the_isolation_lets_see() -> Result<()> {
    let corner = Corner::new("changelog-end", 1)?;
    let (mut first, mut second) = (corner.producer("a")?, corner.producer("b")?);
    let start = [(corner.partition(0), ChangelogOffset::new(0))];
    let mut committed = corner.reader(Isolation::ReadCommitted)?;
    let mut everything = corner.reader(Isolation::ReadUncommitted)?;
    committed.read(&start)?;
    assert_eq!(read_until(&mut committed, "the end of nothing", |met| met.end.is_some())?.end, Some(0));

    // Offset 0 is held open; 1 is committed behind it, 2 is the marker.
    first.begin()?;
    send(&mut first, 0, b"open")?;
    first.drain(SOON)?;
    second.begin()?;
    send(&mut second, 0, b"committed")?;
    second.drain(SOON)?;
    second.commit(SOON)?;
    everything.read(&start)?;
    let met = read_until(&mut everything, "everything", |met| met.end == Some(3))?;
    assert_eq!(met.records, [(0, "open".to_owned()), (1, "committed".to_owned())]);
    committed.read(&start)?;
    let met = read_until(&mut committed, "the stable end", |met| met.end.is_some())?;
    assert_eq!((met.records.len(), met.end), (0, Some(0)), "an open transaction holds back what is behind it");

    // The abort's marker is offset 3. Only what was committed shows, and the end is behind both markers.
    first.abort(SOON)?;
    let met = read_until(&mut committed, "the end after the abort", |met| met.end == Some(4))?;
    assert_eq!(met.records, [(1, "committed".to_owned())]);
    committed.read(&start)?;
    let met = read_until(&mut committed, "the same again", |met| met.end == Some(4))?;
    assert_eq!(met.records, [(1, "committed".to_owned())]);

    // A reader that begins at the end is told so.
    committed.read(&[(corner.partition(0), ChangelogOffset::new(4))])?;
    assert_eq!(read_until(&mut committed, "the end at once", |met| met.end.is_some())?.end, Some(4));
    Ok(())
}

#[test]
fn a_position_that_the_log_does_not_have_is_told() -> Result<()> {
    let corner = Corner::new("changelog-range", 1)?;
    corner.fill(0, 0, 3)?;
    let mut reader = corner.reader(Isolation::ReadCommitted)?;
    reader.read(&[(corner.partition(0), ChangelogOffset::new(50))])?;
    read_until(&mut reader, "out of range", |met| met.out_of_range)?;
    reader.read(&[(corner.partition(0), ChangelogOffset::new(2))])?;
    let met = read_until(&mut reader, "the end", |met| met.end == Some(4))?;
    assert_eq!((met.records, met.out_of_range), (vec![(2, "2".to_owned())], false));
    Ok(())
}

#[test]
fn what_is_not_named_is_not_read_any_more() -> Result<()> {
    let corner = Corner::new("changelog-replace", 2)?;
    corner.fill(0, 0, 5)?;
    corner.fill(1, 100, 105)?;
    let mut reader = corner.reader(Isolation::ReadCommitted)?;
    for round in 0..30 {
        let (number, first) = if round % 2 == 0 { (0, 0) } else { (1, 100) };
        reader.read(&[(corner.partition(number), ChangelogOffset::new(1))])?;
        if round % 5 == 0 {
            continue; // at once the other one
        }
        let met = read_until(&mut reader, "the end", |met| met.end == Some(6))?;
        let expected: Vec<_> = (1..5).map(|offset| (offset, (first + offset).to_string())).collect();
        assert_eq!(met.records, expected, "round {round}");
    }
    Ok(())
}
