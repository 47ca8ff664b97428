//! Partitions change hands on a real Kafka: workers freeze and come back, die for good, come and go, use each other's
//! name, and every input record still takes effect exactly once.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use processor_integration_tests::scene::{Caught, PATIENCE, Scene};
use processor_integration_tests::worker::{Worker, WorkerConfig, await_condition, without_settings};

/// So often at least a reader must have stood behind new batches, for what it has seen to count.
const ENDS_MIN: u64 = 20;
const SESSION: Duration = Duration::from_secs(3);

/// A worker whose partitions move 3 s after it fell silent, and whose operator takes its time.
fn slow(scene: &Scene, worker: &str) -> WorkerConfig {
    let config = scene.worker(worker).with_time("session-timeout", SESSION);
    config.with_time("heartbeat-interval", SESSION / 3).with("pause-us", 300)
}

fn named(scene: &Scene, worker: &str) -> WorkerConfig {
    slow(scene, worker).with("instance-id", worker)
}

/// A worker of a group whose broker assigns (KIP-848), with the session of [`SESSION`] that the brokers have.
fn assigned_by_the_broker(scene: &Scene, worker: &str) -> WorkerConfig {
    scene.worker(worker).with("group-protocol", "consumer").with("pause-us", 300)
}

fn named_by_the_broker(scene: &Scene, worker: &str) -> WorkerConfig {
    assigned_by_the_broker(scene, worker).with("instance-id", worker)
}

/// A worker is frozen inside a transaction for longer than its session and its transaction may last. The other one takes
/// over all partitions and processes everything. The zombie wakes in the middle of its batch, with records to send and
/// offsets to commit: nothing of it may take effect, neither on the topics nor in its own base, which is looked at in the
/// moment when the zombie has learnt what it is. Then it joins again, and at last its directory, which has seen the
/// interrupted transaction, is all that is left.
#[test]
fn a_frozen_worker_that_comes_back_writes_nothing() {
    frozen("frozen", named);
}

/// The same where the broker assigns.
#[test]
fn a_frozen_worker_that_comes_back_writes_nothing_where_the_broker_assigns() {
    frozen("frozen-848", named_by_the_broker);
}

fn frozen(name: &str, named: fn(&Scene, &str) -> WorkerConfig) {
    let transaction_timeout = Duration::from_secs(8);
    let mut scene = Scene::new(name);
    let config = |worker| named(&scene, worker).with_time("transaction-timeout", transaction_timeout);
    let (zombie_config, other_config) = (config("zombie"), config("other"));
    let watch = scene.watch();
    let load = scene.load(600);
    let (mut zombie, other) = (zombie_config.start(), other_config.start());
    for worker in [&zombie, &other] {
        worker.await_running(2, PATIENCE).expect("each has two partitions");
    }
    let done = scene.offsets_done();
    scene.await_outputs(done + 2_000, &[&zombie, &other]);

    let caught = [scene.freeze_in_transaction(&mut zombie)];
    let frozen = Instant::now();
    other.await_running(4, PATIENCE).expect("the other takes over");
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &[&other]);
    await_condition("both time-outs", PATIENCE, || Ok(frozen.elapsed() > SESSION.max(transaction_timeout)))
        .expect("time passes");
    scene.await_visible(PATIENCE).expect("the other has processed everything");
    assert_eq!(scene.outputs(), scene.produced);

    let slept = zombie.log().len();
    let woke = |zombie: &Worker| zombie.log()[slept..].to_owned();
    zombie.thaw().expect("a frozen worker can go on");
    let learnt = await_condition("the zombie to learn what it is", PATIENCE, || {
        let woke = woke(&zombie);
        Ok(["fenced=true", "waiting for the rebalance", "lost=true"].iter().any(|sign| woke.contains(sign)))
    });
    learnt.unwrap_or_else(|error| panic!("{error:#}; since it woke:\n{}", woke(&zombie)));
    zombie.freeze().expect("a worker that runs can be frozen");
    assert!(!woke(&zombie).contains("}: running task="), "its own batch is still the last:\n{}", woke(&zombie));
    let copies = scene.stores_of_frozen("zombie", &zombie);
    assert!(copies.iter().any(|copy| copy.position.is_some()), "it has state: {copies:?}");
    scene.assert_pasts(&copies, &scene.read(&scene.changelog()));
    zombie.thaw().expect("a frozen worker can go on");

    let back = await_condition("the zombie to run again", PATIENCE, || {
        Ok(woke(&zombie).contains("}: running task=") && zombie.assigned().len() == 2)
    });
    back.unwrap_or_else(|error| panic!("{error:#}; since it woke:\n{}", woke(&zombie)));
    assert_eq!(scene.outputs(), scene.produced, "the zombie has written nothing");
    scene.assert_aborted(&caught);
    scene.produce(2_000);
    scene.await_outputs(scene.produced, &[&zombie, &other]);
    zombie.stop().expect("a clean stop");
    other.stop().expect("a clean stop");
    scene.verify(&["zombie", "other"]);

    let zombie = zombie_config.start();
    scene.produce(2_000);
    scene.await_outputs(scene.produced, &[&zombie]);
    zombie.stop().expect("a clean stop");
    watch.finish(ENDS_MIN);
    scene.verify(&["zombie"]);
}

/// Scale-in: a static member that was told to leaves the group when it stops, so nobody waits for its session.
#[test]
fn a_named_worker_that_is_to_leave_gives_its_partitions_up_at_once() {
    let session = Duration::from_mins(1);
    let mut scene = Scene::new("leaves");
    let named = |worker: &str| scene.worker(worker).with("instance-id", worker).with_time("session-timeout", session);
    let (leaving, staying) = (named("leaving").with_variable("PROCESSOR_LEAVE", "true"), named("staying"));
    let (leaving, staying) = (leaving.start(), staying.start());
    for worker in [&leaving, &staying] {
        worker.await_running(2, PATIENCE).expect("each has two partitions");
    }
    scene.produce(2_000);
    scene.await_outputs(scene.produced, &[&leaving, &staying]);
    leaving.stop().expect("a clean stop");
    let left = Instant::now();
    staying.await_running(4, PATIENCE).expect("the other takes over");
    assert!(left.elapsed() < session / 4, "its partitions moved after {:?}", left.elapsed());
    scene.produce(2_000);
    scene.await_outputs(scene.produced, &[&staying]);
    staying.stop().expect("a clean stop");
    scene.verify(&["leaving", "staying"]);
}

/// A worker dies inside a transaction that may stay open for a minute, and does not come back. Its successor ends the
/// transaction as soon as the group knows that the worker is gone: neither the successor nor the readers of the outputs
/// wait for the minute. Once the dead worker has written its changelog, so that it is in its successor's way, and once
/// outputs only.
#[test]
fn a_dead_worker_blocks_neither_its_successor_nor_readers_until_its_transaction_times_out() {
    thread::scope(|scope| {
        let changelog_too = |scene: &Scene, caught: &Caught| caught.open.iter().any(|it| it.topic == scene.changelog());
        let outputs_only = |scene: &Scene, caught: &Caught| caught.open.iter().all(|it| it.topic == scene.output());
        scope.spawn(move || dead("dead", named, changelog_too));
        scope.spawn(move || dead("dead-early", named, outputs_only));
    });
}

/// The same where the broker assigns.
#[test]
fn a_dead_worker_blocks_nobody_where_the_broker_assigns() {
    dead("dead-848", assigned_by_the_broker, |_, _| true);
}

fn dead(name: &str, named: fn(&Scene, &str) -> WorkerConfig, is_wanted: fn(&Scene, &Caught) -> bool) {
    let mut scene = Scene::new(name);
    let config = |worker| named(&scene, worker).with("transaction-timeout", "60s");
    let (dead_config, heir_config) = (config("dead"), config("heir"));
    let watch = scene.watch();
    let load = scene.load(600);
    let (mut dead, heir) = (dead_config.start(), heir_config.start());
    for worker in [&dead, &heir] {
        worker.await_running(2, PATIENCE).expect("each has two partitions");
    }
    let done = scene.offsets_done();
    scene.await_outputs(done + 2_000, &[&dead, &heir]);
    let caught = loop {
        let caught = scene.freeze_in_transaction(&mut dead);
        if is_wanted(&scene, &caught) {
            break [caught];
        }
        dead.thaw().expect("a frozen worker can go on");
    };
    dead.kill().expect("a frozen worker can be killed");
    let killed = Instant::now();

    heir.await_running(4, PATIENCE).expect("the heir takes over");
    let taken_over = killed.elapsed();
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &[&heir]);
    let visible = scene.await_visible(PATIENCE * 2);
    visible.unwrap_or_else(|error| panic!("{error:#}; the heir's log ends:\n{}", heir.log_tail(30)));
    let all_visible = killed.elapsed();
    eprintln!("killed; taken over after {taken_over:.1?}, all outputs visible after {all_visible:.1?}");
    assert!(taken_over < Duration::from_secs(20), "{taken_over:?}");
    assert!(all_visible < Duration::from_secs(40), "{all_visible:?}; the heir's log:\n{}", heir.log());
    assert!(heir.log().contains("fencing"), "the heir fences the dead; its log:\n{}", heir.log());
    heir.stop().expect("a clean stop");
    watch.finish(ENDS_MIN);
    scene.verify(&["dead", "heir"]);
    scene.assert_aborted(&caught);
}

/// The same instance id is given to two workers by mistake, each with a directory of its own. One of them stops and says
/// which id it is; the other one goes on.
#[test]
fn two_workers_with_one_instance_id_do_not_fight() {
    let mut scene = Scene::new("twins");
    let config = |worker| slow(&scene, worker).with("instance-id", "twin");
    let configs = [config("one"), config("two")];
    let load = scene.load(600);
    let one = configs[0].start();
    one.await_running(4, PATIENCE).expect("the first has all partitions");
    scene.await_outputs(1_000, &[&one]);
    let mut twins = [one, configs[1].start()];
    let ended =
        await_condition("one of the two to stop", PATIENCE, || Ok(twins.iter_mut().any(|twin| !twin.is_alive())));
    let logs = |twins: &[Worker; 2]| twins.each_ref().map(|twin| twin.log_tail(30)).join("\n---\n");
    ended.unwrap_or_else(|error| panic!("{error:#}; their logs:\n{}", logs(&twins)));
    let [one, two] = twins;
    let (mut stopped, mut left) = (one, two);
    if stopped.is_alive() {
        std::mem::swap(&mut stopped, &mut left);
    }
    let status = stopped.wait(PATIENCE).expect("it has ended");
    let said = stopped.log_tail(1);
    eprintln!("{status}: {said}");
    assert!(!status.success(), "{status}");
    assert!(said.contains("'twin-0'") || said.contains(":twin:0'"), "the log does not end with the id: {said}");
    assert!(said.contains("is used by another live worker") || said.contains("another process uses it"), "{said}");

    left.await_running(4, PATIENCE).expect("the other one has all partitions");
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &[&left]);
    assert!(left.is_alive());
    left.stop().expect("a clean stop");
    scene.verify(&["one", "two"]);
}

/// One worker, then three, then one again, under load. Without names a worker that stops leaves the group at once; with
/// names its partitions wait for it until its session is over.
#[test]
fn scaling_from_one_to_three_and_back_moves_partitions_without_loss() {
    thread::scope(|scope| {
        scope.spawn(|| scaling("scaling", slow));
        scope.spawn(|| scaling("scaling-named", named));
    });
}

/// The same where the broker assigns. Both kinds of members keep the partitions that the change is not about.
#[test]
fn scaling_where_the_broker_assigns_moves_partitions_without_loss() {
    thread::scope(|scope| {
        scope.spawn(|| scaling("scaling-848", assigned_by_the_broker));
        scope.spawn(|| scaling("scaling-848-named", named_by_the_broker));
    });
}

fn scaling(name: &str, config: fn(&Scene, &str) -> WorkerConfig) {
    let mut scene = Scene::new(name);
    let configs = ["one", "two", "three"].map(|worker| config(&scene, worker));
    let watch = scene.watch();
    let load = scene.load(600);
    let one = configs[0].start();
    one.await_running(4, PATIENCE).expect("the first has all partitions");
    scene.await_outputs(1_000, &[&one]);

    let (two, three) = (configs[1].start(), configs[2].start());
    let all = [&one, &two, &three];
    let shared = await_condition("three to share four partitions", PATIENCE, || {
        let mut shares = all.map(|worker| worker.assigned().len());
        shares.sort_unstable();
        Ok(shares == [1, 1, 2])
    });
    shared.unwrap_or_else(|error| panic!("{error:#}: {:?}", all.map(|worker| worker.log_tail(20))));
    for worker in all {
        worker.await_running(worker.assigned().len(), PATIENCE).expect("every task runs");
    }
    let done = scene.offsets_done();
    scene.await_outputs(done + 2_000, &all);

    two.stop().expect("a clean stop");
    three.stop().expect("a clean stop");
    one.await_running(4, PATIENCE).expect("the first has all partitions again");
    let done = scene.offsets_done();
    scene.await_outputs(done + 1_000, &[&one]);
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &[&one]);
    one.stop().expect("a clean stop");
    watch.finish(ENDS_MIN);
    scene.verify(&["one", "two", "three"]);
    scene.verify(&["one"]);
}

/// Under load one of three is killed inside a transaction, then the next, with names and without, where the broker assigns: one
/// that was killed comes back as soon as its name is free.
#[test]
fn kills_where_the_broker_assigns_lose_and_double_nothing() {
    const KILLS: usize = 6;
    let mut scene = Scene::new("kills-848");
    let configs = [
        named_by_the_broker(&scene, "one"),
        assigned_by_the_broker(&scene, "two"),
        named_by_the_broker(&scene, "three"),
    ];
    let watch = scene.watch();
    let load = scene.load(600);
    let mut workers = configs.each_ref().map(WorkerConfig::start);
    let mut caught = Vec::new();
    for kill in 0..KILLS {
        let victim = kill % workers.len();
        caught.push(scene.freeze_in_transaction(&mut workers[victim]));
        workers[victim].kill().expect("a frozen worker can be killed");
        let killed = Instant::now();
        let back = await_condition("its session to end", PATIENCE, || Ok(killed.elapsed() > SESSION + SESSION / 2));
        back.expect("time passes");
        workers[victim] = configs[victim].start();
    }
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &workers.each_ref());
    for worker in workers {
        worker.stop().expect("a clean stop");
    }
    watch.finish(ENDS_MIN);
    scene.verify(&["one", "two", "three"]);
    scene.assert_aborted(&caught);
}

/// Where the broker assigns, a name belongs to its last holder until that one says goodbye or its session is over: whoever
/// comes too early stops with words that say so. A stop gives the name back. And while a member is there, nothing is reset.
#[test]
fn a_name_is_free_after_a_stop_and_after_the_session_where_the_broker_assigns() {
    let mut scene = Scene::new("names-848");
    scene.produce(500);
    let config = named_by_the_broker(&scene, "one");
    let mut worker = scene.run(&config);
    let refused = reset(&config);
    assert!(refused.contains("names-848:one:0") && refused.contains("stop its workers first"), "{refused}");
    worker.kill().expect("it is ours");
    let log = config.refused(1);
    assert!(log.contains("UNRELEASED_INSTANCE_ID") && log.contains("group.consumer.session.timeout.ms"), "{log}");
    let free = await_condition("the name to be free", PATIENCE, || {
        let mut worker = config.start();
        let came = worker.await_running(4, SESSION);
        Ok(came.is_ok() && worker.is_alive())
    });
    free.expect("the session ends");
    scene.produce(500);
    let begun = Instant::now();
    await_condition("its session to end", PATIENCE, || Ok(begun.elapsed() > SESSION * 2)).expect("time passes");
    scene.run(&config).stop().expect("a clean stop");
    let begun = Instant::now();
    let worker = config.start();
    worker.await_running(4, PATIENCE).expect("a stop has given the name back");
    assert!(begun.elapsed() < SESSION, "nobody waited for a session: {:?}", begun.elapsed());
    worker.stop().expect("a clean stop");
    scene.verify(&["one"]);
}

/// What a reset of the application says that a worker belongs to.
fn reset(config: &WorkerConfig) -> String {
    let mut command = Command::new(&config.program);
    without_settings(&mut command);
    let output = command.args(["reset", "--yes"]).args(&config.arguments).output().expect("the program runs");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_the_broker_decides_cannot_be_set_beside_it() {
    let scene = Scene::new("contradiction-848");
    let log = assigned_by_the_broker(&scene, "one").with("session-timeout", "9s").refused(2);
    assert!(log.contains("session.timeout") && log.contains("group.protocol"), "{log}");
}

/// Three stream threads, each with a consumer and producers of its own, in one process that is killed inside a
/// transaction and comes back.
#[test]
fn three_threads_in_one_process_share_the_partitions() {
    let mut scene = Scene::new("threads");
    let config = named(&scene, "one").with("threads", 3);
    let watch = scene.watch();
    let load = scene.load(1_000);
    let mut worker = config.start();
    let at_work = |worker: &Worker| {
        for thread in 0..3 {
            let works = format!("thread{{id=threads:one:{thread}}}: running task=");
            worker.await_since_start(&works, PATIENCE).expect("each thread has a task");
        }
        worker.await_running(4, PATIENCE).expect("all tasks run");
    };
    at_work(&worker);
    scene.await_outputs(3_000, &[&worker]);
    let caught = [scene.freeze_in_transaction(&mut worker)];
    worker.kill().expect("a frozen worker can be killed");
    let worker = config.start();
    at_work(&worker);
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &[&worker]);
    worker.stop().expect("a clean stop");
    watch.finish(ENDS_MIN);
    scene.verify(&["one"]);
    scene.assert_aborted(&caught);
}

/// A worker with an empty directory is held in the middle of its restore until another one wants to join. So the
/// assignment under which it restores ends before the restore does, twice: the other one is killed while it restores,
/// too. What was read under an assignment that is over must not count for the next. In the middle means that a part of a
/// changelog is in the base on disk, and what is there is exactly that part.
#[test]
fn a_rebalance_during_restore_is_survived() {
    let mut scene = Scene::new("interrupted");
    scene.keys = 300_000;
    scene.produce(300_000);
    let config = |worker| {
        let config = scene.worker(worker).with("session-timeout", "6s").with("heartbeat-interval", "500ms");
        config.with("instance-id", worker)
    };
    let (one_config, two_config) = (config("one"), config("two"));
    let one = one_config.start();
    scene.await_outputs(scene.produced, &[&one]);
    one.stop().expect("a clean stop");
    fs::remove_dir_all(scene.state_dir("one")).expect("the directory can be removed");
    let changelog = scene.read(&scene.changelog());

    // Long enough for the rebalance to come while it restores.
    let one = one_config.with("pause-at", "between-restore-batches:200").start();
    scene.assert_pasts(&scene.freeze_in_restore("one", &one), &changelog);
    let mut two = two_config.start();
    scene.await_rebalance();
    one.thaw().expect("a frozen worker can go on");
    one.await_since_start("}: revoked ", PATIENCE).expect("the rebalance reaches the first");
    scene.assert_pasts(&scene.freeze_in_restore("two", &two), &changelog);
    two.kill().expect("a frozen worker can be killed");
    one.await_running(4, PATIENCE).expect("the first has all partitions again");

    let log = one.log_since_start();
    let first_running = log.find("}: running task=").expect("it runs");
    let assigned = log[..first_running].matches("}: assigned ").count();
    eprintln!("{assigned} assignments before the first task ran; replayed {:?}", one.replayed());
    assert!(assigned >= 2, "the rebalance came while it restored:\n{log}");
    scene.produce(20_000);
    scene.await_outputs(scene.produced, &[&one]);
    one.stop().expect("a clean stop");
    scene.verify(&["one", "two"]);
}
