//! Who may use the directory, and how states are handed over.

use std::fs;
use std::ops::{Bound, ControlFlow};
use std::time::Duration;

use super::*;

#[test]
fn a_second_process_is_refused_and_told_who_holds_it() {
    let root = temporary();
    let owner = directory(root.path());
    let error = RocksDirectory::open(root.path(), APPLICATION, settings()).expect_err("it is held");
    assert_eq!(error.kind, StateErrorKind::InUse);
    assert!(error.message.contains(&format!("process {}", std::process::id())), "{error}");
    assert!(error.message.contains(APPLICATION), "{error}");
    let offline = read_task_offline(owner.path(), &task_id()).expect_err("it is held");
    assert_eq!(offline.kind, StateErrorKind::InUse);

    let other_application = RocksDirectory::open(root.path(), "billing", settings());
    assert!(other_application.is_ok(), "applications do not disturb each other");
    drop(owner);
    directory(root.path());
}

/// The lock belongs to what is open in it, not to the value that opened it.
#[test]
fn the_lock_is_held_until_the_last_state_is_closed() {
    let root = temporary();
    let owner = directory(root.path());
    let task = open(&owner, &layout(&["a"]));
    drop(owner);
    let error = RocksDirectory::open(root.path(), APPLICATION, settings()).expect_err("a task is open in it");
    assert_eq!(error.kind, StateErrorKind::InUse);
    drop(task);
    directory(root.path());
}

#[test]
fn foreign_directories_are_refused_with_the_remedy() {
    let root = temporary();
    drop(directory(root.path()));
    let marker = root.path().join(APPLICATION).join("application.json");
    let text = fs::read_to_string(&marker).expect("the marker was made");
    let cases = [text.replace(APPLICATION, "billing"), text.replace("\"format\": 1", "\"format\": 2"), "{".to_owned()];
    for case in cases {
        fs::write(&marker, case).expect("written");
        let error = RocksDirectory::open(root.path(), APPLICATION, settings()).expect_err("it is foreign");
        assert_eq!(error.kind, StateErrorKind::Foreign);
        assert!(error.message.contains("set `state.dir` to another directory"), "{error}");
    }
    fs::remove_file(&marker).expect("removed");
    drop(directory(root.path()));
    fs::remove_file(&marker).expect("made again, as nothing else was there");
    fs::write(root.path().join(APPLICATION).join("photos.zip"), "").expect("written");
    let error = RocksDirectory::open(root.path(), APPLICATION, settings()).expect_err("it holds something else");
    assert_eq!(error.kind, StateErrorKind::Foreign);
    assert!(error.message.contains("photos.zip"), "{error}");
}

#[test]
fn the_instance_id_is_made_once() {
    let root = temporary();
    let id = directory(root.path()).instance_id().expect("made");
    assert_eq!(id.len(), 12);
    assert_eq!(directory(root.path()).instance_id().expect("kept"), id);
    fs::write(root.path().join(APPLICATION).join("instance.id"), "").expect("damaged");
    assert_ne!(directory(root.path()).instance_id().expect("made anew"), id);
}

#[test]
fn a_state_is_open_once() {
    let root = temporary();
    let owner = directory(root.path());
    let first = open(&owner, &layout(&["a"]));
    assert!(owner.open(&task_id(), &layout(&["a"])).expect("no error").is_none());
    drop(first);
    open(&owner, &layout(&["a"]));
}

#[test]
fn parked_state_is_handed_to_another_thread_without_opening_it_again() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=5);
    let reader = task.reader();
    owner.park(task);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut task = open(&owner, &layout(&["a", "b"]));
            apply_batches(&mut task, 6..=9);
            assert_eq!(entries(&reader, 0).expect("the same database is still open"), model_at(9)[0]);
            owner.park(task);
        });
    });
    assert_eq!(assert_is_a_prefix(&open(&owner, &layout(&["a", "b"]))), 9);
}

#[test]
fn parked_states_are_closed_when_there_are_too_many_or_they_are_too_old() {
    let root = temporary();
    let settings = StateSettings { parked_max: 2, ..settings() };
    let owner = RocksDirectory::open(root.path(), APPLICATION, settings.clone()).expect("free");
    let tasks: Vec<_> = (0..3).map(|partition| TaskId::new("orders", Partition::new(partition))).collect();
    let open = |owner: &RocksDirectory, task| owner.open(task, &layout(&["a"])).expect("opens").expect("free");
    let states: Vec<_> = tasks.iter().map(|task| open(&owner, task)).collect();
    let readers: Vec<_> = states.iter().map(RocksTask::reader).collect();
    for state in states {
        owner.park(state);
    }
    let is_open = |reader: &TaskReader| entries(reader, 0).is_ok();
    assert_eq!(readers.iter().map(is_open).collect::<Vec<_>>(), [false, true, true]);
    drop(owner);
    assert_eq!(readers.iter().map(is_open).collect::<Vec<_>>(), [false; 3], "the directory's end closes all");

    let impatient = StateSettings { park_for: Duration::ZERO, ..settings };
    let owner = RocksDirectory::open(root.path(), APPLICATION, impatient).expect("free");
    let state = open(&owner, &tasks[0]);
    let reader = state.reader();
    owner.park(state);
    assert!(!is_open(&reader));
}

#[test]
fn a_query_that_outlives_the_task_delays_the_next_open() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=3);
    let reader = task.reader();
    let mut task = Some(task);
    let scan = reader.range(StoreIndex::new(0), Bound::Unbounded, Bound::Unbounded, false, &mut |_, _| {
        drop(task.take());
        assert!(owner.open(&task_id(), &layout(&["a", "b"])).expect("no error").is_none());
        ControlFlow::Continue(())
    });
    scan.expect("the scan ends undisturbed");
    open(&owner, &layout(&["a", "b"]));
}

/// RocksDB writes nothing more after a failed write, so handing such a database on would help nobody.
#[test]
fn a_parked_state_whose_write_has_failed_meanwhile_is_opened_anew() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=5);
    let database = Arc::downgrade(&task.database);
    owner.park(task);
    database.upgrade().expect("it is parked").note_failed_write();
    let task = open(&owner, &layout(&["a", "b"]));
    assert!(!task.database.needs_reopening() && database.upgrade().is_none());
    assert_eq!(assert_is_a_prefix(&task), 5);
}

#[test]
fn a_state_whose_write_failed_is_not_parked_and_opens_whole() {
    let root = temporary();
    let owner = directory(root.path());
    let mut task = open(&owner, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=3);
    apply::wipe_until(&mut task, StoreIndex::new(0), 2).expect("the disk takes it");
    let error = apply(&mut task, &changes_of(4), &positions_of(4)).expect_err("a store is missing");
    assert_eq!(error.kind, StateErrorKind::Disk);
    let reader = task.reader();
    owner.park(task);
    assert!(entries(&reader, 1).is_err(), "it was closed");
    let task = open(&owner, &layout(&["a", "b"]));
    assert_eq!(task.positions().changelogs, [None, positions_of(3).changelogs[1]]);
    assert_eq!(entries(&task, 0).expect("made again"), Entries::new());
}

#[test]
fn a_reset_leaves_alone_what_is_no_tasks() {
    let root = temporary();
    drop(open(&directory(root.path()), &layout(&["a", "b"])));
    let others = ["backup", "orders_3.old", "orders_03", "_"].map(|name| root.path().join(APPLICATION).join(name));
    for other in &others {
        fs::create_dir(other).expect("there is room");
    }
    let held = LocalState::hold(root.path(), APPLICATION).expect("nobody holds it").expect("it is there");
    assert_eq!(held.tasks(), [task_id().to_string()]);
    held.remove().expect("the disk takes it");
    assert!(!task_path(root.path()).exists());
    for other in others {
        assert!(other.is_dir(), "{} is left alone", other.display());
    }
}
