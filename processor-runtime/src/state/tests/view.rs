//! Looking at state that a worker has open.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn seen(view: &TaskView, store: &str) -> Entries {
    let mut entries = Entries::new();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let scanned = view.scan(store, all, false, |key, value| {
        entries.insert(key.to_vec(), value.to_vec());
        std::ops::ControlFlow::Continue(())
    });
    scanned.expect("readable");
    entries
}

fn view(root: &Path) -> TaskView {
    TaskView::open(&root.join(APPLICATION), &task_id()).expect("it can be looked at").expect("it is there")
}

/// Checks that a view is of the state after some batch, in all stores and positions, and says which.
fn assert_is_of_one_moment(view: &TaskView) -> u64 {
    let batch = view.task().map_or(0, |task| task.batch.get());
    let model = model_at(batch);
    assert_eq!(seen(view, "a"), model[0], "store a at batch {batch}");
    assert_eq!(seen(view, "b"), model[1], "store b at batch {batch}");
    let offset = view.stores().get("a").cloned().flatten().map(|record| record.offset);
    assert_eq!(offset, positions_of(batch).changelogs[0]);
    batch
}

/// A worker writes, flushes and so removes logs all the time. Whatever is seen meanwhile is one committed state.
#[test]
fn a_view_of_state_that_is_being_written_is_of_one_moment() {
    let root = temporary();
    let directory = directory(root.path());
    let mut task = open(&directory, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for batch in 2..=400 {
                apply_batches(&mut task, batch..=batch);
                if batch % 5 == 0 {
                    let families =
                        ["store.a", "store.b", positions::FAMILY].map(|name| task.database.db().cf_handle(name));
                    let families: Vec<_> = families.iter().flatten().collect();
                    let flushed = task.database.db().flush_cfs_opt(&families, &rocksdb::FlushOptions::default());
                    flushed.expect("the disk takes it");
                }
            }
            over.store(true, Ordering::SeqCst);
        });
        let mut last = 1;
        while !over.load(Ordering::SeqCst) {
            let batch = assert_is_of_one_moment(&view(root.path()));
            assert!(batch >= last, "a later view is of a later moment");
            last = batch;
        }
    });
    assert_eq!(assert_is_of_one_moment(&view(root.path())), 400);
}

#[test]
fn looking_changes_nothing_on_disk_and_takes_no_lock() {
    let root = temporary();
    let held = directory(root.path());
    let mut task = open(&held, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=20);
    drop(task); // an open database removes files of its own in the background
    let contents = || {
        let names = names_below(root.path());
        names
            .into_iter()
            .map(|name| (fs::read(root.path().join(&name)).expect("it is there"), name))
            .collect::<Vec<_>>()
    };
    let before = contents();
    assert_eq!(applications(root.path()).expect("it can be listed"), [APPLICATION]);
    assert_eq!(tasks(&root.path().join(APPLICATION)).expect("it can be listed"), [task_id()]);
    let view = view(root.path());
    assert_is_of_one_moment(&view);
    drop(view);
    let after = contents();
    let changed: Vec<_> = after.iter().filter(|file| !before.contains(file)).map(|(_, name)| name).collect();
    assert!(changed.is_empty() && after.len() == before.len(), "looking has changed {changed:?}");
    apply_batches(&mut open(&held, &layout(&["a", "b"])), 21..=22);
}

#[test]
fn a_view_keeps_its_moment_while_the_worker_goes_on() {
    let root = temporary();
    let mut task = open(&directory(root.path()), &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=20);
    let view = view(root.path());
    apply_batches(&mut task, 21..=60);
    drop(task);
    fs::remove_dir_all(task_path(root.path())).expect("it is ours");
    assert_eq!(assert_is_of_one_moment(&view), 20);
}

#[test]
fn state_that_a_worker_has_open_is_not_removed() {
    let root = temporary();
    let held = directory(root.path());
    let mut task = open(&held, &layout(&["a", "b"]));
    apply_batches(&mut task, 1..=3);
    let error = LocalState::hold(root.path(), APPLICATION).expect_err("a worker has it");
    assert_eq!(error.kind, StateErrorKind::InUse);
    drop((task, held));
    let id = directory(root.path()).instance_id().expect("it is kept");
    let state = LocalState::hold(root.path(), APPLICATION).expect("it is free").expect("there is some");
    assert_eq!(state.tasks(), [task_id().to_string()]);
    state.remove().expect("it is ours");
    assert!(TaskView::open(&root.path().join(APPLICATION), &task_id()).expect("readable").is_none());
    assert_eq!(directory(root.path()).instance_id().expect("it is kept"), id, "the worker's name stays");
}

#[test]
fn state_of_another_application_is_not_removed() {
    let root = temporary();
    drop(directory(root.path()));
    fs::rename(root.path().join(APPLICATION), root.path().join("other")).expect("it is ours");
    let error = LocalState::hold(root.path(), "other").expect_err("it is the shop's");
    assert_eq!(error.kind, StateErrorKind::Foreign);
    assert!(LocalState::hold(root.path(), APPLICATION).expect("nothing is there").is_none());
}
