//! What is committed and not on disk yet: it is read as if it were, is written as it must be, and is lost as it may be.

use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::behind::Behind;
use super::*;

/// Commits wait for others, for longer than a test takes.
fn waiting(root: &Path) -> RocksDirectory {
    let settings = StateSettings { write_behind: Duration::from_mins(10), ..settings() };
    RocksDirectory::open(root, APPLICATION, settings).expect("the directory is free")
}

#[test]
fn what_waits_is_read_and_a_kill_leaves_an_older_commit() {
    let root = temporary();
    let directory = waiting(root.path());
    let mut task = open(&directory, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=20);
    apply::settle(&task.database).expect("the disk takes it");
    apply_batches(&mut task, 21..=50);
    assert_eq!(assert_is_a_prefix(&task), 50);

    let killed = temporary();
    copy_tree(root.path(), killed.path());
    let after_kill = waiting(killed.path());
    assert_eq!(assert_is_a_prefix(&open(&after_kill, &layout(&["a", "b"]))), 20);

    drop(task);
    assert_eq!(assert_is_a_prefix(&open(&directory, &layout(&["a", "b"]))), 50, "what is closed is written");
}

#[test]
fn what_is_large_enough_is_written_by_itself_at_a_commit() {
    let root = temporary();
    let settings = StateSettings { memory_budget_bytes: 1 << 20, write_behind: Duration::from_mins(10), ..settings() };
    let directory = RocksDirectory::open(root.path(), APPLICATION, settings).expect("the directory is free");
    let mut task = open(&directory, &layout(&["a", "b"]));
    let value = vec![7; 10_000];
    for batch in 1..=200_u64 {
        let mut changes = changes_of(batch);
        changes.push(StoreIndex::new(0), format!("large-{batch}").as_bytes(), Some(&value));
        apply(&mut task, &changes, &positions_of(batch)).expect("the disk takes it");
    }
    let killed = temporary();
    copy_tree(root.path(), killed.path());
    let after_kill = open(&waiting(killed.path()), &layout(&["a", "b"]));
    let batch = after_kill.positions().batch.get();
    assert!((150..=200).contains(&batch), "of 200 batches of 10 kB {batch} are on disk");
    let mut model = model_at(batch);
    model[0].extend((1..=batch).map(|batch| (format!("large-{batch}").into_bytes(), value.clone())));
    assert_eq!(entries(&after_kill, 0).expect("readable"), model[0]);
    assert_eq!(entries(&after_kill, 1).expect("readable"), model[1]);
}

#[test]
fn what_nobody_adds_to_is_written_in_time() {
    let root = temporary();
    let settings = StateSettings { write_behind: Duration::from_millis(50), ..settings() };
    let directory = RocksDirectory::open(root.path(), APPLICATION, settings).expect("the directory is free");
    let mut task = open(&directory, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=7);
    assert!(becomes_written(&task), "the writer has come by");
    let killed = temporary();
    copy_tree(root.path(), killed.path());
    assert_eq!(assert_is_a_prefix(&open(&waiting(killed.path()), &layout(&["a", "b"]))), 7);
}

/// Whether nothing waits any more, at last.
fn becomes_written(task: &RocksTask) -> bool {
    (0..2_000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        task.database.behind().age().is_none() && !task.database.behind().is_frozen()
    })
}

#[test]
fn what_is_old_is_written_however_busy_others_keep_the_writer() {
    let root = temporary();
    let settings = StateSettings { write_behind: Duration::from_millis(50), ..settings() };
    let directory = RocksDirectory::open(root.path(), APPLICATION, settings).expect("the directory is free");
    let mut idle = open(&directory, &layout(&["a", "b"]));
    apply_batches(&mut idle, 1..=7);
    let other = TaskId::new("orders", Partition::new(4));
    let mut busy = directory.open(&other, &layout(&["a", "b"])).expect("the state opens").expect("nobody holds it");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for batch in 1.. {
                if done.load(Ordering::SeqCst) {
                    return;
                }
                apply(&mut busy, &changes_of(batch), &positions_of(batch)).expect("the disk takes it");
                busy.database.memory().freeze(&busy.database);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let written = becomes_written(&idle);
        done.store(true, Ordering::SeqCst);
        assert!(written, "the writer has come by");
    });
}

#[test]
fn a_quarter_of_the_budget_waits_at_most_however_many_have_a_part_of_it() {
    const BUDGET: usize = 1 << 20;
    let root = temporary();
    let settings = StateSettings { memory_budget_bytes: BUDGET, write_behind: Duration::from_mins(10), ..settings() };
    let directory = RocksDirectory::open(root.path(), APPLICATION, settings).expect("the directory is free");
    let task = |number| TaskId::new("orders", Partition::new(number));
    let open = |number| directory.open(&task(number), &layout(&["a", "b"])).expect("it opens").expect("it is free");
    let mut tasks: Vec<RocksTask> = (0..24).map(open).collect();
    let first = Arc::clone(&tasks[0].database);
    let memory = first.memory();
    let mut waited_max = 0;
    for batch in 1..=30_u64 {
        for task in &mut tasks {
            let mut changes = changes_of(batch);
            changes.push(StoreIndex::new(0), format!("large-{batch}").as_bytes(), Some(&[7; 2_000]));
            apply(task, &changes, &positions_of(batch)).expect("the disk takes it");
            waited_max = waited_max.max(memory.waiting_bytes());
        }
    }
    assert!((BUDGET / 8..BUDGET / 4 + 10_000).contains(&waited_max), "{waited_max} bytes have waited");
    assert!(directory.memory_used_bytes() >= memory.waiting_bytes());
    drop(tasks);
    assert_eq!(memory.waiting_bytes(), 0, "closed states wait for nothing");
}

/// The owner goes over a large store for long; the writer writes, and others read.
#[test]
fn a_scan_of_the_owner_holds_nobody_up() {
    let root = temporary();
    let directory = waiting(root.path());
    let mut task = open(&directory, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=20);
    let (reader, mut seen) = (task.reader(), Entries::new());
    task.range(StoreIndex::new(0), Bound::Unbounded, Bound::Unbounded, false, &mut |key, value| {
        if seen.is_empty() {
            std::thread::scope(|scope| {
                let write = scope.spawn(|| apply::settle(&task.database));
                write.join().expect("it ends").expect("the disk takes it");
            });
            assert_eq!(entries(&reader, 0).expect("readable"), model_at(20)[0]);
        }
        seen.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })
    .expect("readable");
    assert_eq!(seen, model_at(20)[0], "it is of one moment");
}

/// Random changes, freezes, writes and reads, against a plain map.
#[test]
fn layers_read_like_one_map() {
    let root = temporary();
    let directory = waiting(root.path());
    let mut task = open(&directory, &layout(&["a", "b"]));
    let (mut numbers, mut model) = (Numbers(7), Entries::new());
    let key = |numbers: &mut Numbers| format!("{:02}", numbers.below(60)).into_bytes();
    for batch in 1..=400_u64 {
        let mut changes = ChangeSet::default();
        for _ in 0..numbers.below(6) {
            let key = key(&mut numbers);
            if numbers.below(3) == 0 {
                changes.push(StoreIndex::new(0), &key, None);
                model.remove(&key);
            } else {
                let value = numbers.below(1_000).to_string().into_bytes();
                changes.push(StoreIndex::new(0), &key, Some(&value));
                model.insert(key, value);
            }
        }
        let positions =
            Positions { changelogs: vec![Some(ChangelogOffset::new(batch as i64)), None], ..positions_of(batch) };
        apply(&mut task, &changes, &positions).expect("the disk takes it");
        match numbers.below(8) {
            0 => drop(task.database.behind().freeze()),
            1 => apply::write_frozen(&task.database).expect("the disk takes it"),
            _ => {}
        }
        let (from, to) = (key(&mut numbers), key(&mut numbers));
        let mut value = Vec::new();
        let found = task.get(StoreIndex::new(0), &from, &mut value).expect("readable");
        assert_eq!(found.then_some(value), model.get(&from).cloned(), "batch {batch}");
        let keys: Vec<Vec<u8>> = (0..numbers.below(600)).map(|_| key(&mut numbers)).collect();
        let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let mut together = vec![None; asked.len()];
        let found = &mut |place: usize, value: Option<&[u8]>| {
            together[place] = value.map(<[u8]>::to_vec);
            ControlFlow::Continue(())
        };
        task.get_many(StoreIndex::new(0), &asked, found).expect("readable");
        let expected: Vec<_> = keys.iter().map(|key| model.get(key).cloned()).collect();
        assert_eq!(together, expected, "batch {batch}");
        let from_beside = (numbers.below(40) == 0).then(|| task.reader());
        let base: &dyn Base = from_beside.as_ref().map_or(&task, |reader| reader);
        let limit = numbers.below(10) as usize;
        for reverse in [false, true] {
            let mut read = Vec::new();
            let bounds = (Bound::Excluded(from.as_slice()), Bound::Included(to.as_slice()));
            base.range(StoreIndex::new(0), bounds.0, bounds.1, reverse, &mut |key, value| {
                read.push((key.to_vec(), value.to_vec()));
                if read.len() > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .expect("readable");
            let inside = model.iter().filter(|(key, _)| **key > from && **key <= to);
            let mut expected: Vec<_> = inside.map(|(key, value)| (key.clone(), value.clone())).collect();
            if reverse {
                expected.reverse();
            }
            expected.truncate(limit + 1);
            assert_eq!(read, expected, "batch {batch}, reverse {reverse}");
        }
    }
}

#[test]
fn a_write_that_fails_is_told_to_the_next_commit_and_nothing_is_lost_meanwhile() {
    let behind = Behind::new(2, &Arc::default());
    let add = |batch: u64| behind.add(&changes_of(batch), &positions_of(batch), |_| true);
    add(1);
    assert!(behind.freeze());
    add(2);
    let refused = StateError { kind: StateErrorKind::Disk, message: "full".to_owned() };
    let written = behind.write(|_| Err(refused.clone()));
    assert_eq!(written.expect_err("it was refused").message, "full");
    assert_eq!(behind.failed().expect("it is remembered").message, "full");
    assert!(behind.write(|_| panic!("nobody writes again before it is opened anew")).is_err());
    let key = b"key-1";
    assert_eq!(behind.look().get(StoreIndex::new(0), key), Some((&key[..], Some(&b"1"[..]))), "it is still read");
}

#[test]
fn a_state_of_which_something_was_not_written_takes_no_commit() {
    let root = temporary();
    let directory = waiting(root.path());
    let mut task = open(&directory, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=5);
    assert!(task.failed().is_none());
    assert!(task.database.behind().freeze());
    let refused = StateError { kind: StateErrorKind::Disk, message: "full".to_owned() };
    task.database.note_failed_write();
    task.database.behind().write(|_| Err(refused)).expect_err("it was refused");
    assert_eq!(task.failed().expect("it is told").message, "full");
    let applied = apply(&mut task, &changes_of(6), &positions_of(6));
    assert_eq!(applied.expect_err("nothing is written any more").message, "full");
    assert_eq!(*task.positions(), positions_of(5));
    directory.park(task);
    let task = open(&directory, &layout(&["a", "b"]));
    assert_eq!((task.positions().batch.get(), task.failed().is_none()), (0, true), "what was not written is restored");
}

#[test]
fn a_wipe_takes_what_waits_along() {
    let root = temporary();
    let directory = waiting(root.path());
    let mut task = open(&directory, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=5);
    task.wipe(StoreIndex::new(0)).expect("wiped");
    assert_eq!(entries(&task, 0).expect("readable"), Entries::new());
    assert_eq!(entries(&task, 1).expect("readable"), model_at(5)[1]);
    drop(task);
    let task = open(&directory, &layout(&["a", "b"]));
    assert_eq!((task.positions().changelogs[0], entries(&task, 0).expect("readable")), (None, Entries::new()));
    directory.discard(task).expect("removed");
    assert_eq!(*open(&directory, &layout(&["a", "b"])).positions(), Positions::empty(2));
}
