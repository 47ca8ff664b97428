//! Reads, and the laws that a write is checked against.

use std::ops::{Bound, ControlFlow};

use proptest::prelude::*;

use super::*;

const STORE: StoreIndex = StoreIndex::new(0);

fn task_with(root: &Path, entries: &Entries) -> RocksTask {
    let mut task = open(&directory(root), &layout(&["a", "b"]));
    let mut changes = ChangeSet::default();
    for (key, value) in entries {
        changes.push(STORE, key, Some(value));
    }
    apply(&mut task, &changes, &positions_of(1)).expect("the disk takes it");
    task
}

fn scan(
    task: &RocksTask,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    reverse: bool,
    limit: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let scanned = task.range(STORE, from, to, reverse, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    scanned.expect("readable");
    found
}

#[test]
fn get_appends_and_says_whether_there_is_a_value() {
    let root = temporary();
    let task = task_with(root.path(), &Entries::from([(vec![], b"of the empty key".to_vec()), (vec![0], vec![])]));
    let mut value = b"before ".to_vec();
    assert!(task.get(STORE, b"", &mut value).expect("readable"));
    assert_eq!(value, b"before of the empty key");
    assert!(task.get(STORE, &[0], &mut value).expect("readable"), "an empty value is a value");
    assert!(!task.get(STORE, b"absent", &mut value).expect("readable"));
    assert!(!task.get(StoreIndex::new(1), b"", &mut value).expect("readable"), "stores are apart");
    assert_eq!(value, b"before of the empty key");
    assert_eq!(task.approximate_len(STORE).expect("readable"), 2);
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    let key = || prop::collection::vec(0..3_u8, 0..3);
    prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded)]
}

#[test]
fn ranges_are_those_of_a_map() {
    let root = temporary();
    let keys = (0..40_u8)
        .map(|number| vec![number % 3, number / 3 % 3, number / 9][..usize::from(number % 4).min(3)].to_vec());
    let model: Entries = keys.map(|key| (key.clone(), key)).collect();
    let task = task_with(root.path(), &model);
    let mut in_memory = layout(&["a", "b"]);
    in_memory.stores[0].in_memory = true;
    let elsewhere = temporary();
    let mut remembered = open(&directory(elsewhere.path()), &in_memory);
    let mut changes = ChangeSet::default();
    for (key, value) in &model {
        changes.push(STORE, key, Some(value));
    }
    apply(&mut remembered, &changes, &positions_of(1)).expect("the disk takes it");
    let within = |key: &Vec<u8>, from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>| {
        let above = match from {
            Bound::Included(from) => key >= from,
            Bound::Excluded(from) => key > from,
            Bound::Unbounded => true,
        };
        let below = match to {
            Bound::Included(to) => key <= to,
            Bound::Excluded(to) => key < to,
            Bound::Unbounded => true,
        };
        above && below
    };
    proptest!(|(from in bound(), to in bound(), reverse: bool, limit in 1..20_usize)| {
        let mut expected: Vec<_> = model.clone().into_iter().filter(|(key, _)| within(key, &from, &to)).collect();
        if reverse {
            expected.reverse();
        }
        expected.truncate(limit);
        let (from, to) = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        prop_assert_eq!(&scan(&task, from, to, reverse, limit), &expected);
        prop_assert_eq!(&scan(&remembered, from, to, reverse, limit), &expected, "in memory as on disk");
    });
}

fn applied_then(changes: &ChangeSet, positions: &Positions) {
    let root = temporary();
    let mut task = open(&directory(root.path()), &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=4);
    apply(&mut task, changes, positions).expect("the disk takes it");
}

#[test]
fn positions_may_advance_without_values_and_batches_may_repeat() {
    let mut positions = positions_of(4);
    positions.changelogs[1] = Some(ChangelogOffset::new(99));
    applied_then(&ChangeSet::default(), &positions);
    applied_then(&ChangeSet::default(), &positions_of(4));
}

#[test]
#[should_panic(expected = "EO-3: the position of store 0 advances with its values")]
fn values_without_their_position_are_refused() {
    applied_then(&changes_of(5), &positions_of(4));
}

#[test]
#[should_panic(expected = "EO-3: the position of store 1 never goes back")]
fn a_position_that_goes_back_is_refused() {
    let mut positions = positions_of(4);
    positions.changelogs[1] = None;
    applied_then(&ChangeSet::default(), &positions);
}

#[test]
#[should_panic(expected = "EO-3: there is a position for every store")]
fn too_few_positions_are_refused() {
    applied_then(&ChangeSet::default(), &Positions::empty(1));
}

#[test]
#[should_panic(expected = "EO-8: stream time never goes back")]
fn stream_time_that_goes_back_is_refused() {
    applied_then(&ChangeSet::default(), &Positions { stream_time: None, ..positions_of(4) });
}

#[test]
#[should_panic(expected = "EO-8: batches are applied in order")]
fn an_older_batch_is_refused() {
    applied_then(&ChangeSet::default(), &Positions { batch: BatchId::new(3), ..positions_of(4) });
}

/// The write buffers of tasks that are not written any more must not fill the budget: nobody else would flush them.
#[test]
fn idle_tasks_are_flushed_when_memory_is_short() {
    let root = temporary();
    let owner = directory(root.path());
    let open = |partition| {
        let task = TaskId::new("orders", Partition::new(partition));
        owner.open(&task, &layout(&["a"])).expect("opens").expect("free")
    };
    let mut tasks: Vec<_> = (0..6).map(open).collect();
    let fill = |task: &mut RocksTask, batch: u64| {
        let mut changes = ChangeSet::default();
        (0..700_u32).for_each(|key| changes.push(STORE, &key.to_be_bytes(), Some(&[batch as u8; 1000])));
        let positions = Positions { changelogs: vec![Some(ChangelogOffset::new(batch as i64))], ..positions_of(batch) };
        apply(task, &changes, &positions).expect("the disk takes it");
    };
    for task in &mut tasks {
        fill(task, 1);
    }
    let (last, idle) = tasks.split_last_mut().expect("six");
    let held = |idle: &[RocksTask]| idle.iter().map(|task| task.database.write_buffer_bytes()).sum::<u64>();
    let before = held(idle);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    for batch in 2.. {
        fill(last, batch);
        if held(idle) < before / 2 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "idle tasks still hold {} of {before} bytes", held(idle));
    }
}
