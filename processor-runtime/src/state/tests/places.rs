//! Stores that are kept in memory, and stores without a changelog: what outlives a close, and what the disk knows.

use super::*;
use crate::state::offline::read_task_offline;

const DISK: StoreIndex = StoreIndex::new(0);
const MEMORY: StoreIndex = StoreIndex::new(1);
const LOCAL: StoreIndex = StoreIndex::new(2);

/// A store of each kind.
fn mixed() -> Layout {
    let mut layout = layout(&["disk", "memory", "local"]);
    layout.stores[1].in_memory = true;
    layout.stores[2].changelog_topic_id = None;
    layout
}

/// The first batches, which write one key of each store.
fn written(batch: u64) -> (ChangeSet, Positions) {
    let mut changes = ChangeSet::default();
    for store in [DISK, MEMORY, LOCAL] {
        changes.push(store, b"key", Some(&batch.to_be_bytes()));
        changes.push(store, &batch.to_be_bytes(), Some(b"once"));
    }
    let end = Some(ChangelogOffset::new(batch as i64 * 2));
    (changes, Positions { changelogs: vec![end, end, None], ..positions_of(batch) })
}

fn apply_mixed(task: &mut RocksTask, batch: u64) {
    let (changes, positions) = written(batch);
    apply(task, &changes, &positions).expect("the disk takes it");
}

fn held(task: &RocksTask) -> [usize; 3] {
    [DISK, MEMORY, LOCAL].map(|store| entries(task, store.get()).expect("readable").len())
}

#[test]
fn what_is_in_memory_is_gone_after_a_close_and_the_rest_is_not() {
    let root = temporary();
    let mut task = open(&directory(root.path()), &mixed());
    (1..=3).for_each(|batch| apply_mixed(&mut task, batch));
    assert_eq!(held(&task), [4; 3]);
    assert_eq!(*task.positions(), written(3).1);
    let mut value = Vec::new();
    assert!(task.get(MEMORY, b"key", &mut value).expect("readable"));
    assert_eq!((value.as_slice(), task.approximate_len(MEMORY).expect("readable")), (&3_u64.to_be_bytes()[..], 4));
    drop(task);

    let task = open(&directory(root.path()), &mixed());
    assert_eq!(held(&task), [4, 0, 4]);
    let [end, _, _] = written(3).1.changelogs[..] else { panic!("three stores") };
    assert_eq!(*task.positions(), Positions { changelogs: vec![end, None, None], ..positions_of(3) });
}

#[test]
fn a_parked_state_keeps_what_is_in_memory() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &mixed());
    apply_mixed(&mut task, 1);
    owner.park(task);
    let task = open(&owner, &mixed());
    assert_eq!((held(&task), task.positions()), ([2; 3], &written(1).1));
}

#[test]
fn readers_on_other_threads_see_what_is_in_memory() {
    let root = temporary();
    let mut task = open(&directory(root.path()), &mixed());
    let reader = task.reader();
    apply_mixed(&mut task, 1);
    let seen =
        std::thread::scope(|scope| scope.spawn(|| entries(&reader, MEMORY.get())).join().expect("it only reads"));
    assert_eq!(seen.expect("readable").len(), 2);
}

#[test]
fn deletes_and_wipes_reach_every_kind() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &mixed());
    apply_mixed(&mut task, 1);
    let (_, positions) = written(2);
    let mut changes = ChangeSet::default();
    for store in [DISK, MEMORY, LOCAL] {
        changes.push(store, b"key", None);
    }
    apply(&mut task, &changes, &positions).expect("the disk takes it");
    assert_eq!(held(&task), [1; 3]);
    for store in [MEMORY, LOCAL] {
        task.wipe(store).expect("the disk takes it");
        assert_eq!(task.positions().changelogs[store.slot()], None);
    }
    assert_eq!(held(&task), [1, 0, 0]);
}

/// The values of a store without a changelog are in the same write as the batch number that vouches for them.
#[test]
fn a_crash_leaves_local_values_and_their_batch_together() {
    let root = temporary();
    let mut task = open(&directory(root.path()), &mixed());
    (1..=20).for_each(|batch| apply_mixed(&mut task, batch));
    let [log] = &logs(root.path())[..] else { panic!("one log") };
    let whole = fs::read(log).expect("readable");
    let mut seen = std::collections::BTreeSet::new();
    for cut in (0..whole.len()).step_by(97) {
        let copy = temporary();
        copy_tree(root.path(), copy.path());
        let log = copy.path().join(log.strip_prefix(root.path()).expect("below"));
        fs::write(&log, &whole[..cut]).expect("writable");
        let task = open(&directory(copy.path()), &mixed());
        let batch = task.positions().batch.get() as usize;
        let expected = if batch == 0 { 0 } else { batch + 1 };
        assert_eq!(held(&task), [expected, 0, expected], "cut at {cut}");
        seen.insert(batch);
    }
    assert!(seen.len() > 10, "the cuts leave many prefixes: {seen:?}");
}

#[test]
fn only_stores_on_disk_with_a_changelog_have_a_position_there() {
    let root = temporary();
    let mut task = open(&directory(root.path()), &mixed());
    apply_mixed(&mut task, 1);
    drop(task);
    let dump = read_task_offline(&root.path().join(APPLICATION), &task_id()).expect("readable").expect("it is there");
    let found: Vec<_> = dump.stores.iter().map(|(name, store)| (name.as_str(), store.position.is_some())).collect();
    assert_eq!(found, [("disk", true), ("local", false)]);
}

#[test]
fn a_store_that_moves_into_memory_leaves_nothing_on_disk() {
    let root = temporary();
    let mut task = open(&directory(root.path()), &layout(&["disk", "memory", "local"]));
    let (changes, mut positions) = written(1);
    positions.changelogs[2] = Some(ChangelogOffset::new(2));
    apply(&mut task, &changes, &positions).expect("the disk takes it");
    drop(task);

    let task = open(&directory(root.path()), &mixed());
    assert_eq!(held(&task), [2, 0, 2], "memory begins empty, local goes on");
    assert_eq!(task.positions().changelogs, [Some(ChangelogOffset::new(2)), None, None]);
    drop(task);
    let dump = read_task_offline(&root.path().join(APPLICATION), &task_id()).expect("readable").expect("it is there");
    let found: Vec<_> = dump.stores.iter().map(|(name, store)| (name.as_str(), store.position.is_some())).collect();
    assert_eq!(found, [("disk", true), ("local", false)], "no stale position could be continued from later");

    let task = open(&directory(root.path()), &layout(&["disk", "memory", "local"]));
    assert_eq!(held(&task), [2, 0, 0], "with a changelog again, they are restored from it");
}

#[test]
#[should_panic(expected = "EO-3: store 2 has no changelog, and so no position")]
fn a_position_without_a_changelog_is_refused() {
    let root = temporary();
    let mut task = open(&directory(root.path()), &mixed());
    let (changes, mut positions) = written(1);
    positions.changelogs[2] = Some(ChangelogOffset::new(1));
    let _ = apply(&mut task, &changes, &positions);
}

#[test]
#[should_panic(expected = "EO-3: the position of store 1 advances with its values")]
fn values_in_memory_without_their_position_are_refused() {
    let root = temporary();
    let mut task = open(&directory(root.path()), &mixed());
    let (changes, mut positions) = written(1);
    positions.changelogs[1] = None;
    let _ = apply(&mut task, &changes, &positions);
}
