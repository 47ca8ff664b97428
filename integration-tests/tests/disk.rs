//! A state directory on a disk that is full or write-protected: nothing is lost or doubled, the log names the directory
//! and what to do, and the worker goes on when there is room.

use std::fs;

use processor_integration_tests::disk::Disk;
use processor_integration_tests::scene::{PATIENCE, Scene, copy_directory};
use processor_integration_tests::worker::await_condition;

const DISK_BYTES: u64 = 64 << 20;
/// How much is produced at a time until the disk is seen to be full.
const RECORDS: u64 = 50_000;
const ROUNDS: usize = 40;
/// So many that every batch writes about as many values as it has records.
const KEYS: u64 = 200_000;
/// Enough for every partition.
const BEHIND: u64 = 2_000;

fn disk(scene: &Scene) -> Disk {
    Disk::new(&scene.state_dir("one"), DISK_BYTES).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Takes the state out of the disk, to where the oracles look.
fn take_out(scene: &Scene, disk: &Disk) {
    let outside = scene.state_dir("one");
    let mut written = fs::read_dir(&outside).expect("the directory is there");
    assert!(written.next().is_none(), "nothing was ever written outside of the disk");
    copy_directory(&disk.path(), &outside);
}

/// The disk fills while the worker runs. Its state cannot take what is committed, so the task closes it and stands, in
/// the group, until there is room; then it opens the state again and replays what that lacks.
#[test]
fn a_disk_that_fills_holds_the_tasks_until_there_is_room() {
    let mut scene = Scene::new("disk-fills");
    scene.keys = KEYS;
    let disk = disk(&scene);
    let worker = disk.worker(scene.worker("one")).start();
    scene.produce(RECORDS);
    scene.await_outputs(scene.produced, &[&worker]);

    let application = scene.application_dir("one");
    let is_seen = || {
        let log = worker.log_since_start();
        let closed = |line: &str| line.contains("the state is closed, and opened again in");
        log.lines().any(|line| {
            closed(line)
                && line.contains(&application.display().to_string())
                && line.contains("No space left on device")
        })
    };
    for _ in 0..ROUNDS {
        disk.fill().expect("it takes what there is room for");
        scene.produce(RECORDS);
        // RocksDB has room in logs that it has made already, and gives some of it back when it opens a database again: it
        // is taken while records come.
        let seen = await_condition("outputs, or a full disk", PATIENCE, || {
            disk.fill()?;
            Ok(is_seen() || scene.offsets_done() >= scene.produced)
        });
        seen.unwrap_or_else(|error| panic!("{error:#}; its log ends:\n{}", worker.log_tail(30)));
        if is_seen() {
            break;
        }
    }
    assert!(is_seen(), "{} records of state fit nowhere; the log ends:\n{}", scene.produced, worker.log_tail(30));

    disk.free().expect("the ballast is there");
    // The state may have been closed behind the last commit: whoever stops then is as far as the disk had taken it. What
    // comes now is processed by tasks whose state is open and complete.
    scene.produce(BEHIND);
    scene.await_outputs(scene.produced, &[&worker]);
    worker.stop().expect("a clean stop");
    take_out(&scene, &disk);
    scene.verify(&["one"]);
}

/// A worker whose directory cannot be written stops before it takes part in anything.
#[test]
fn a_write_protected_state_directory_is_refused() {
    let mut scene = Scene::new("write-protected");
    let disk = disk(&scene);
    scene.produce(2_000);
    let config = disk.worker(scene.worker("one"));
    scene.run(&config).stop().expect("a clean stop");

    disk.write_protect(true).expect("nobody writes to it");
    scene.produce(2_000);
    let log = config.refused(1);
    for words in
        ["Read-only file system", "check that the disk is there", &scene.application_dir("one").display().to_string()]
    {
        assert!(log.contains(words), "no '{words}' in\n{log}");
    }
    assert_eq!(scene.settled(), 2_000, "nothing more was processed");

    disk.write_protect(false).expect("it is ours");
    scene.run(&config).stop().expect("a clean stop");
    take_out(&scene, &disk);
    scene.verify(&["one"]);
}

/// A worker that starts on a full disk.
#[test]
fn a_full_disk_is_named_at_the_start() {
    let mut scene = Scene::new("disk-full");
    let disk = disk(&scene);
    disk.fill().expect("it takes what there is room for");
    scene.produce(2_000);
    let config = disk.worker(scene.worker("one"));
    let log = config.refused(1);
    for words in ["No space left on device", "has room", &scene.application_dir("one").display().to_string()] {
        assert!(log.contains(words), "no '{words}' in\n{log}");
    }
    assert_eq!(scene.offsets_done(), 0, "nothing was processed");

    disk.free().expect("the ballast is there");
    scene.run(&config).stop().expect("a clean stop");
    take_out(&scene, &disk);
    scene.verify(&["one"]);
}
