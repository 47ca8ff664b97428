//! What is there after a crash: all of it after `kill -9`, a prefix after a power loss.

use std::fs::{self, File};

use super::*;

/// A crash of the process, not of the machine: what RocksDB gave to the operating system is on disk, and a copy of the
/// directory of the open database shows just that.
#[test]
fn a_killed_process_loses_nothing() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &layout(&["a", "b"]));
    for batch in 1..=30 {
        apply_batches(&mut task, batch..=batch);
        if batch % 6 != 0 {
            continue;
        }
        let copy = temporary();
        copy_tree(root.path(), copy.path());
        let copied = open(&directory(copy.path()), &layout(&["a", "b"]));
        assert_eq!(assert_is_a_prefix(&copied), batch);
    }
}

#[test]
fn state_and_positions_come_back_after_closing() {
    let root = temporary();
    for (from, to) in [(1, 10), (11, 20), (21, 21)] {
        let owner = directory(root.path());
        let mut task = open(&owner, &layout(&["a", "b"]));
        assert_eq!(assert_is_a_prefix(&task), from - 1);
        apply_batches(&mut task, from..=to);
    }
    let dump = read_task_offline(&root.path().join(APPLICATION), &task_id()).expect("free").expect("there");
    assert_eq!(dump.task.map(|task| task.batch), Some(BatchId::new(21)));
    assert_eq!(dump.stores["b"].entries, model_at(21)[1]);
    assert_eq!(dump.stores["b"].position.as_ref().map(|position| position.offset), positions_of(21).changelogs[1]);
}

/// Opens a copy of `root` after `harm`, and says at which batch it is; 0 also stands for wiped.
fn batch_after(root: &Path, harm: impl FnOnce(&Path)) -> u64 {
    let copy = temporary();
    copy_tree(root, copy.path());
    harm(copy.path());
    let owner = directory(copy.path());
    let task = open(&owner, &layout(&["a", "b"]));
    assert_is_a_prefix(&task)
}

fn cut(path: &Path, length: u64) {
    let file = File::options().write(true).open(path).expect("the log is there");
    file.set_len(length).expect("cut");
}

/// A power loss: the log was never synced, so any part of its end may be missing.
#[test]
fn a_cut_log_opens_to_a_prefix_of_the_batches() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=40);
    let length = fs::metadata(logs(root.path()).last().expect("a log")).expect("there").len();
    let mut numbers = Numbers(1);
    let mut lengths: Vec<_> = (0..120).map(|_| numbers.below(length + 1)).collect();
    lengths.sort_unstable();
    let mut reached = 0;
    for length in lengths {
        let batch = batch_after(root.path(), |copy| cut(logs(copy).last().expect("a log"), length));
        assert!(batch >= reached, "a longer log holds at least as much: {batch} after {reached} at {length}");
        reached = batch;
    }
    assert!(reached >= 35, "the longest cuts lose little: {reached}");
}

/// The end of the log is there, but not as it was written.
#[test]
fn a_log_with_a_flipped_byte_opens_to_a_prefix_of_the_batches() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=40);
    let length = fs::metadata(logs(root.path()).last().expect("a log")).expect("there").len();
    let mut numbers = Numbers(2);
    for _ in 0..40 {
        let at = numbers.below(length) as usize;
        batch_after(root.path(), |copy| flip(logs(copy).last().expect("a log"), at));
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("the file is there");
    bytes[at] ^= 0x40;
    fs::write(path, bytes).expect("written");
}

/// Several logs are alive, and one of the families is ahead of the others on disk: the hard case for a prefix.
fn history_with_several_logs(root: &Path) -> (RocksDirectory, RocksTask) {
    let owner = directory(root);
    let mut task = open(&owner, &layout(&["a", "b"]));
    for (round, family) in (0..).zip(["store.a", "positions", "store.a"]) {
        apply_batches(&mut task, round * 10 + 1..=round * 10 + 10);
        let handle = task.database.db().cf_handle(family).expect("there");
        task.database.db().flush_cf(&handle).expect("flushed");
        drop(handle);
    }
    apply_batches(&mut task, 31..=40);
    (owner, task)
}

#[test]
fn any_of_several_logs_may_be_cut_or_lost() {
    let root = temporary();
    let _open = history_with_several_logs(root.path());
    let alive = logs(root.path());
    assert!(alive.len() > 1, "the families hold on to several logs: {alive:?}");
    let mut numbers = Numbers(3);
    for (index, log) in alive.iter().enumerate() {
        batch_after(root.path(), |copy| fs::remove_file(&logs(copy)[index]).expect("removed"));
        let length = fs::metadata(log).expect("there").len();
        for length in (0..30).map(|_| numbers.below(length + 1)).chain([0, length]) {
            batch_after(root.path(), |copy| cut(&logs(copy)[index], length));
        }
    }
}

#[test]
fn the_end_of_the_manifest_may_be_cut() {
    let root = temporary();
    let _open = history_with_several_logs(root.path());
    let manifest = |root: &Path| files_like(&task_path(root), |name| name.starts_with("MANIFEST"));
    let length = fs::metadata(manifest(root.path()).last().expect("a manifest")).expect("there").len();
    let mut numbers = Numbers(4);
    for length in (0..60).map(|_| numbers.below(length)) {
        batch_after(root.path(), |copy| cut(manifest(copy).last().expect("a manifest"), length));
    }
}

/// Every point at which a wipe can be cut short ends, after opening, in an empty store without a position.
#[test]
fn a_wipe_that_was_cut_short_is_completed() {
    let root = temporary();
    {
        let owner = directory(root.path());
        let mut task = open(&owner, &layout(&["a", "b"]));
        apply_batches(&mut task, 1..=10);
    }
    let mut wiped = positions_of(10);
    wiped.changelogs[0] = None;

    for step in 1..=3 {
        let copy = temporary();
        copy_tree(root.path(), copy.path());
        let owner = directory(copy.path());
        {
            let mut task = open(&owner, &layout(&["a", "b"]));
            apply::wipe_until(&mut task, StoreIndex::new(0), step).expect("the disk takes it");
        }
        let task = open(&owner, &layout(&["a", "b"]));
        assert_eq!(*task.positions(), wiped, "after step {step}");
        assert_eq!(entries(&task, 0).expect("readable"), Entries::new());
        assert_eq!(entries(&task, 1).expect("readable"), model_at(10)[1]);
    }
}

#[test]
fn a_wiped_store_is_empty_and_can_be_filled_again() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=10);
    task.wipe(StoreIndex::new(0)).expect("the disk takes it");
    assert_eq!(task.positions().changelogs, [None, positions_of(10).changelogs[1]]);
    assert_eq!(entries(&task, 0).expect("readable"), Entries::new());

    let mut changes = ChangeSet::default();
    changes.push(StoreIndex::new(0), b"key", Some(b"value"));
    let mut positions = positions_of(10);
    positions.changelogs[0] = Some(ChangelogOffset::new(1));
    apply(&mut task, &changes, &positions).expect("restored from its start, in the same batch as before");
    drop(task);
    let task = open(&owner, &layout(&["a", "b"]));
    assert_eq!(*task.positions(), positions);
    assert_eq!(entries(&task, 0).expect("readable").len(), 1);
}

#[test]
fn an_interrupted_removal_leaves_nothing_that_opens() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=10);
    drop(task);
    fs::remove_file(task_path(root.path()).join("CURRENT")).expect("the first step of a removal");
    assert_eq!(assert_is_a_prefix(&open(&owner, &layout(&["a", "b"]))), 0);
}

#[test]
fn discarded_state_is_gone() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=10);
    owner.discard(task).expect("removed");
    assert!(!task_path(root.path()).exists());
    assert_eq!(assert_is_a_prefix(&open(&owner, &layout(&["a", "b"]))), 0);
}
