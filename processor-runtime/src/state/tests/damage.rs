//! Damaged files are noticed: state is right, or wiped, or an error says so; it is never wrong.

use std::fs;

use super::*;

/// State in SST files, and some of it in the log.
fn flushed_history(root: &Path) -> RocksDirectory {
    let owner = directory(root);
    let mut task = open(&owner, &layout(&["a", "b"]));
    for batch in 1..=40 {
        apply_batches(&mut task, batch..=batch);
        if batch % 16 == 0 {
            let families: Vec<_> = ["store.a", "store.b", "positions"]
                .map(|name| task.database.db().cf_handle(name).expect("there"))
                .into();
            task.database
                .db()
                .flush_cfs_opt(&families.iter().collect::<Vec<_>>(), &rocksdb::FlushOptions::default())
                .expect("flushed");
        }
    }
    owner
}

/// What came of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Unharmed,
    Wiped,
    CorruptOnRead,
}

/// Opens a copy of `root` after `harm`, and checks that nothing in it is wrong.
fn outcome_of(root: &Path, harm: impl FnOnce(&Path)) -> Outcome {
    let copy = temporary();
    copy_tree(root, copy.path());
    harm(&task_path(copy.path()));
    let owner = directory(copy.path());
    let task = open(&owner, &layout(&["a", "b"]));
    let batch = task.positions().batch.get();
    assert_eq!(*task.positions(), positions_of(batch));
    let mut outcome = if batch == 0 { Outcome::Wiped } else { Outcome::Unharmed };
    for (store, model) in (0..).zip(&model_at(batch)) {
        match entries(&task, store) {
            Ok(entries) => assert_eq!(entries, *model, "store {store} at batch {batch}"),
            Err(error) => {
                assert!(error.corrupt, "{error}");
                outcome = Outcome::CorruptOnRead;
            }
        }
        read_every_key(&task, store, model, &mut outcome);
    }
    if outcome == Outcome::CorruptOnRead {
        owner.discard(task).expect("removed");
        assert_eq!(assert_is_a_prefix(&open(&owner, &layout(&["a", "b"]))), 0);
    }
    outcome
}

fn read_every_key(task: &RocksTask, store: u16, model: &Entries, outcome: &mut Outcome) {
    for (key, value) in model {
        let mut found = Vec::new();
        match task.get(StoreIndex::new(store), key, &mut found) {
            Ok(there) => assert!(there && found == *value, "{}", key.escape_ascii()),
            Err(error) => {
                assert!(error.corrupt, "{error}");
                *outcome = Outcome::CorruptOnRead;
            }
        }
    }
}

fn overwrite(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("written");
}

#[test]
fn a_damaged_current_file_is_wiped() {
    let root = temporary();
    let _owner = flushed_history(root.path());
    for content in ["", "MANIFEST-999999\n", "MANIFEST-000005", "\0\0\0\0\0\0", "../../etc/passwd\n"] {
        assert_eq!(
            outcome_of(root.path(), |task| overwrite(&task.join("CURRENT"), content.as_bytes())),
            Outcome::Wiped,
            "{content:?}"
        );
    }
    assert_eq!(outcome_of(root.path(), |task| fs::remove_file(task.join("CURRENT")).expect("removed")), Outcome::Wiped);
}

#[test]
fn no_flipped_byte_of_a_manifest_or_table_goes_unnoticed() {
    let root = temporary();
    let _owner = flushed_history(root.path());
    let mut numbers = Numbers(5);
    let mut counts = [[0; 3]; 2];
    let manifests: fn(&Path) -> Vec<std::path::PathBuf> = |task| files_like(task, |name| name.starts_with("MANIFEST"));
    let tables: fn(&Path) -> Vec<std::path::PathBuf> = |task| files_with(task, "sst");
    for (kind, files) in [manifests, tables].into_iter().enumerate() {
        for _ in 0..60 {
            let outcome = outcome_of(root.path(), |task| {
                let files = files(task);
                let file = &files[numbers.below(files.len() as u64) as usize];
                let mut bytes = fs::read(file).expect("there");
                let at = numbers.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << numbers.below(8);
                overwrite(file, &bytes);
            });
            counts[kind][outcome as usize] += 1;
        }
    }
    let [manifest, tables] = counts;
    assert!(manifest[Outcome::Wiped as usize] > 30, "manifests: {counts:?}");
    assert!(tables[Outcome::Unharmed as usize] < 60, "tables: {counts:?}");
}

#[test]
fn missing_and_cut_tables_are_noticed() {
    let root = temporary();
    let _owner = flushed_history(root.path());
    let tables = |task: &Path| files_with(task, "sst");
    let count = tables(&task_path(root.path())).len();
    assert!(count >= 3, "every family has a table");
    for index in 0..count {
        let removed = outcome_of(root.path(), |task| fs::remove_file(&tables(task)[index]).expect("removed"));
        assert_ne!(removed, Outcome::Unharmed);
        let cut = outcome_of(root.path(), |task| overwrite(&tables(task)[index], &[0; 100]));
        assert_ne!(cut, Outcome::Unharmed);
    }
}

#[test]
fn hostile_positions_are_wiped() {
    let root = temporary();
    let owner = directory(root.path());
    for (key, value) in [(&b"task"[..], &b"nonsense"[..]), (b"store/a", b"\x01"), (b"who knows", b"")] {
        let mut task = open(&owner, &layout(&["a", "b"]));
        apply_batches(&mut task, 1..=3);
        apply::put_position_bytes(&task, key, value);
        drop(task);
        assert_eq!(assert_is_a_prefix(&open(&owner, &layout(&["a", "b"]))), 0, "{}", key.escape_ascii());
    }
}

#[test]
fn an_offline_reader_reports_damage_and_wipes_nothing() {
    let root = temporary();
    let owner = directory(root.path());
    apply_batches(&mut open(&owner, &layout(&["a", "b"])), 1..=3);
    drop(owner);
    let current = task_path(root.path()).join("CURRENT");
    overwrite(&current, b"nonsense");
    let error = read_task_offline(&root.path().join(APPLICATION), &task_id()).expect_err("it is damaged");
    assert_eq!(error.kind, StateErrorKind::Corrupt);
    assert_eq!(fs::read(&current).expect("still there"), b"nonsense");
}
