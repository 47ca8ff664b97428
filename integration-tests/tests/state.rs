//! The state directory: whose it is, what becomes of it when it is damaged, old or without its offsets. Local state is
//! a copy; the changelog and the committed offsets decide.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use processor_integration_tests::client::{Workload, alter_topic, block_on, produce_ledger};
use processor_integration_tests::oracle::{PartitionLog, input_ends};
use processor_integration_tests::scene::{PATIENCE, Scene, copy_directory};
use processor_integration_tests::worker::{Worker, await_condition};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Runs a member that leaves the group when it is stopped, so that nothing waits for a session to time out, until
/// everything that was produced is processed.
fn run(scene: &Scene) -> Worker {
    scene.run(&scene.worker("one"))
}

fn run_and_stop(scene: &Scene) {
    run(scene).stop().expect("a clean stop");
}

fn put_back(backup: &Path, directory: &Path) {
    fs::remove_dir_all(directory).expect("the directory is there");
    copy_directory(backup, directory);
}

#[test]
fn a_state_directory_in_use_is_refused() {
    let mut scene = Scene::new("in-use");
    scene.produce(2_000);
    let first = run(&scene);
    let mut second = scene.worker("one");
    second.log = scene.dir.join("second.log");
    let log = second.refused(1);
    let directory = scene.application_dir("one");
    assert!(log.contains(&format!("{} is in use by process {}", directory.display(), first.pid())), "{log}");
    scene.produce(1_000);
    scene.await_outputs(scene.produced, &[&first]);
    first.stop().expect("a clean stop");
    scene.verify(&["one"]);
}

#[test]
fn a_state_directory_of_another_application_is_refused() {
    let mut owner = Scene::new("owner");
    owner.produce(500);
    run_and_stop(&owner);

    let mut other = Scene::new("other");
    other.produce(500);
    copy_directory(&owner.application_dir("one"), &other.application_dir("one"));
    let log = other.worker("one").refused(1);
    assert!(log.contains("belongs to application `owner`, and this is `other`"), "{log}");
    assert!(log.contains(&other.application_dir("one").display().to_string()), "{log}");
    assert!(other.kafka.partition_count(&other.changelog()).is_err(), "it stopped before it made a topic");

    fs::remove_dir_all(other.application_dir("one")).expect("it is there");
    run_and_stop(&other);
    other.verify(&["one"]);
}

/// What a disk may do to a file of a database.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// It is gone.
    Missing,
    /// Its second half is gone.
    Truncated,
    /// Bits in its middle are others.
    Flipped,
}

fn damage(file: &Path, damage: Damage) {
    let bytes = fs::read(file).expect("the file can be read");
    match damage {
        Damage::Missing => fs::remove_file(file).expect("the file can be removed"),
        Damage::Truncated => fs::write(file, &bytes[..bytes.len() / 2]).expect("the file can be written"),
        Damage::Flipped => {
            let mut bytes = bytes;
            let (from, to) = (bytes.len() / 4, bytes.len() * 3 / 4);
            bytes[from..to].iter_mut().step_by(7).for_each(|byte| *byte ^= 0x55);
            fs::write(file, bytes).expect("the file can be written");
        }
    }
}

/// The files of a kind in a task's directory, of a worker that is stopped.
fn files_of(scene: &Scene, partition: i32, is_kind: fn(&Path) -> bool) -> Vec<PathBuf> {
    let files = fs::read_dir(scene.task_dir("one", partition)).expect("the task has a directory");
    let paths = files.map(|file| file.expect("a listed directory can be read on").path());
    paths.filter(|path| is_kind(path)).collect()
}

fn is_current(path: &Path) -> bool {
    path.ends_with("CURRENT")
}

fn is_manifest(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"MANIFEST-"))
}

fn is_write_ahead_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log") && fs::metadata(path).is_ok_and(|it| it.len() > 0)
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sst")
}

fn is_table_of_store(path: &Path) -> bool {
    is_table(path) && fs::read(path).is_ok_and(|bytes| bytes.windows(8).any(|window| window == b"account-"))
}

/// Files of each kind, damaged in each way, each way in another task and one task left whole: the worker starts, every
/// task that was hit says what it found, the one that was not says nothing, and everything is exact. A write-ahead log
/// that lost its end leaves older state, which is sound: then only the tail is replayed.
#[test]
fn damaged_state_is_wiped_and_restored() {
    type Kind = (&'static str, fn(&Path) -> bool, bool);
    let kinds: [Kind; 5] = [
        ("CURRENT", is_current, true),
        ("MANIFEST", is_manifest, true),
        ("write-ahead log", is_write_ahead_log, false),
        ("tables", is_table, true),
        ("tables of the store", is_table_of_store, true),
    ];
    let damages = [(0, Damage::Flipped), (1, Damage::Truncated), (2, Damage::Missing)];
    let whole = 3;
    let mut scene = Scene::new("damaged");
    scene.produce(4_000);
    run_and_stop(&scene);
    for (what, is_kind, is_wiped) in kinds {
        // Tables are made when a write-ahead log is opened again, and logs when records are processed.
        while damages.iter().any(|(partition, _)| files_of(&scene, *partition, is_kind).is_empty()) {
            scene.produce(1_000);
            run_and_stop(&scene);
        }
        for (partition, how) in damages {
            for file in files_of(&scene, partition, is_kind) {
                damage(&file, how);
            }
        }
        scene.produce(1_000);
        let worker = run(&scene);
        let (log, replayed) = (worker.log_since_start(), BTreeMap::from_iter(worker.replayed()));
        worker.stop().expect("a clean stop");
        for (partition, how) in damages {
            let wiped = is_said_to_be_wiped(&log, partition);
            assert!(wiped || !is_wiped, "{what} {how:?}: task {partition} says that its state is wiped:\n{log}");
            assert!(replayed[&partition] > 0, "{what} {how:?}: task {partition} replays what was damaged:\n{log}");
        }
        assert!(!is_said_to_be_wiped(&log, whole), "{what}: task {whole} was left whole:\n{log}");
        assert_eq!(replayed[&whole], 0, "{what}: task {whole} lacks nothing:\n{log}");
        scene.verify(&["one"]);
    }
}

/// Whether a line of the log says of this task that its state is wiped or restored in full.
fn is_said_to_be_wiped(log: &str, partition: i32) -> bool {
    let of_task = |line: &&str| line.contains(&format!("entries_{partition}"));
    log.lines().filter(of_task).any(|line| line.contains("wiped") || line.contains("restored in full"))
}

/// A block of values is damaged, and nobody notices before a record wants to read it: the batch is given up, the store
/// wiped and restored while the worker runs, and the record processed again.
#[test]
fn damage_that_a_record_meets_is_wiped_and_restored() {
    let mut scene = Scene::new("damaged-block");
    scene.produce(4_000);
    run_and_stop(&scene);
    // What stands in the log becomes a table when it is opened again.
    let worker = scene.worker("one").start();
    worker.await_running(4, PATIENCE).expect("the databases open");
    worker.stop().expect("a clean stop");
    let of_task = |partition| files_of(&scene, partition, is_table_of_store);
    let tables: Vec<PathBuf> = (0..scene.partitions).flat_map(of_task).collect();
    assert_eq!(tables.len(), 4, "each task has a table of its store: {tables:?}");
    for table in &tables {
        let mut bytes = fs::read(table).expect("the file can be read");
        // A table begins with its values.
        bytes[40..60].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(table, bytes).expect("the file can be written");
    }
    let worker = scene.worker("one").start();
    worker.await_running(4, PATIENCE).expect("the databases open");
    assert!(!worker.log_since_start().contains("wiped"), "nobody has noticed:\n{}", worker.log_since_start());
    scene.produce(4_000);
    scene.await_outputs(scene.produced, &[&worker]);
    let log = worker.log_since_start();
    worker.stop().expect("a clean stop");
    assert_eq!(log.matches("restored in full: local state is damaged").count(), 4, "every task says so:\n{log}");
    scene.verify(&["one"]);
}

/// The group's offsets are deleted while the changelog is full of state: to begin at the start of the input would apply
/// everything twice, so the worker stops, with and without local state. It goes on where a person says.
#[test]
fn state_without_offsets_is_refused() {
    let mut scene = Scene::new("offsets-lost");
    scene.produce(2_000);
    run_and_stop(&scene);
    scene.delete_group();
    for worker in ["one", "empty"] {
        let log = scene.worker(worker).refused(1);
        assert!(log.contains("there is committed state in offsets-lost-accounts-changelog-"), "{worker}: {log}");
        assert!(log.contains("kafka-consumer-groups --reset-offsets"), "{worker}: {log}");
    }
    assert_eq!(scene.outputs(), 2_000, "nothing was processed");

    let input = scene.read(&scene.input());
    scene.set_offsets(&input_ends(&input));
    scene.produce(1_000);
    run_and_stop(&scene);
    scene.verify(&["one"]);
}

/// Produces entries of few accounts, so that every one of them is written again and again.
fn produce_few_accounts(scene: &mut Scene, count: u64) {
    let workload = Workload { keys: 40, ..scene.workload(count) };
    produce_ledger(&scene.bootstrap, &workload).expect("the broker takes records");
    scene.produced += count;
}

#[test]
fn an_old_copy_of_the_state_directory_catches_up() {
    let mut scene = Scene::new("old-copy");
    scene.produce(3_000);
    run_and_stop(&scene);
    let backup = scene.dir.join("backup");
    copy_directory(&scene.application_dir("one"), &backup);
    let old = scene.positions("one");
    scene.produce(5_000);
    run_and_stop(&scene);
    let new = scene.positions("one");
    put_back(&backup, &scene.application_dir("one"));
    assert_eq!(scene.positions("one"), old, "the state is an old one");
    assert!(old.iter().all(|(partition, old)| *old < new[partition]), "{old:?} {new:?}");

    scene.produce(1_000);
    let worker = run(&scene);
    let (log, replayed) = (worker.log_since_start(), worker.replayed());
    worker.stop().expect("a clean stop");
    assert!(!log.contains("wiped"), "an old state is a sound state:\n{log}");
    assert!(replayed.len() == 4 && replayed.iter().all(|(_, replayed)| *replayed > 0), "{replayed:?}:\n{log}");
    scene.verify(&["one"]);
}

/// The first offset that a changelog needs: below it there are only values that were written again later.
fn first_needed(log: &PartitionLog) -> i64 {
    let mut last: BTreeMap<&[u8], i64> = BTreeMap::new();
    for record in &log.records {
        last.insert(record.key.as_deref().expect("a changelog record has a key"), record.offset);
    }
    last.into_values().min().expect("the changelog holds something")
}

/// Deletes the records below these offsets. Kafka refuses that for a topic that is only compacted.
fn delete_records(scene: &Scene, topic: &str, before: &BTreeMap<i32, i64>) {
    let set = |policy| {
        let config = [("cleanup.policy", policy), ("retention.ms", "-1")];
        alter_topic(&scene.bootstrap, topic, &config).expect("the settings are sound");
    };
    set("delete");
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in before {
        let added = offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset));
        added.expect("an offset is not negative");
    }
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &scene.bootstrap).create().expect("the settings are sound");
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let outcome = await_condition("the records to be deleted", PATIENCE, || {
        let deleted = block_on(admin.delete_records(&offsets, &options))?;
        Ok(deleted.elements().iter().all(|element| element.error().is_ok()))
    });
    outcome.expect("the broker deletes records");
    set("compact");
}

/// A state directory is restored from a backup that is older than what the changelog still holds: records that it has
/// not seen are gone. What they said may have been said again later or not, and nobody can know, so local state is
/// wiped. Here all of it was said again, so the changelog alone gives the exact state.
#[test]
fn a_changelog_truncated_below_the_stored_position_is_restored_in_full() {
    let mut scene = Scene::new("truncated");
    produce_few_accounts(&mut scene, 2_000);
    run_and_stop(&scene);
    let backup = scene.dir.join("backup");
    copy_directory(&scene.application_dir("one"), &backup);
    let old = scene.positions("one");
    for _ in 0..3 {
        produce_few_accounts(&mut scene, 2_000);
        run_and_stop(&scene);
    }
    let changelog = scene.read(&scene.changelog());
    let needed = changelog.iter().map(|log| (log.partition, first_needed(log))).collect();
    delete_records(&scene, &scene.changelog(), &needed);
    put_back(&backup, &scene.application_dir("one"));
    assert!(old.iter().all(|(partition, old)| *old < needed[partition]), "{old:?} lies before {needed:?}");

    let worker = scene.worker("one").start();
    worker.await_running(4, PATIENCE).expect("the state is restored");
    produce_few_accounts(&mut scene, 1_000);
    scene.await_outputs(scene.produced, &[&worker]);
    let log = worker.log_since_start();
    worker.stop().expect("a clean stop");
    let reason = "is wiped: its position lies before the start of the changelog, so it is restored in full";
    assert_eq!(log.matches(reason).count(), 4, "every task says so:\n{log}");
    scene.verify(&["one"]);
}
