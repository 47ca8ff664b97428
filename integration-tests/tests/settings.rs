//! Settings end to end: four places, one stronger than the other; what is wrong is refused with its place; secrets are
//! shown nowhere; the cluster is checked before anything is begun.

use std::fs;
use std::process::{Command, Output};

use processor_integration_tests::scene::Scene;
use processor_integration_tests::worker::{WorkerConfig, without_settings};
use serde_json::Value;

/// Runs the worker's `config` command with these options.
fn config(worker: &WorkerConfig, options: &[&str]) -> Output {
    let mut command = Command::new(&worker.program);
    without_settings(&mut command);
    command.arg("config").args(options).envs(worker.variables.iter().cloned());
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a settings file for the scene's worker; its path.
fn file(scene: &Scene, more: &str) -> String {
    let path = scene.dir.join("app.toml");
    let state_dir = scene.state_dir("one");
    let content = format!(
        "application.id = \"{}\"\nbootstrap.servers = \"{}\"\nstate.dir = \"{}\"\n{more}",
        scene.name,
        scene.workers_bootstrap,
        state_dir.display()
    );
    fs::write(&path, content).expect("the test's directory can be written");
    path.display().to_string()
}

/// A worker that gets its settings from a file.
fn worker(scene: &Scene, file: &str) -> WorkerConfig {
    WorkerConfig::new("ledger-worker", scene.dir.join("one.log"))
        .with("input", scene.input())
        .with("output", scene.output())
        .with_variable("PROCESSOR_CONFIG", file)
}

/// The value of a setting in what `config --json` printed, and the place that it came from.
fn found<'a>(listed: &'a Value, name: &str) -> (&'a str, &'a str) {
    let settings = listed["settings"].as_array().expect("a list of settings");
    let setting = settings.iter().find(|setting| setting["name"] == name).expect("every setting is listed");
    (setting["value"].as_str().unwrap_or("-"), setting["from"].as_str().expect("a place"))
}

#[test]
fn each_place_is_stronger_than_the_one_before_and_the_worker_runs_by_them() {
    let mut scene = Scene::new("places");
    scene.produce(2_000);
    let more = "threads = 2\nsession.timeout = \"9s\"\nheartbeat.interval = \"2s\"\n[kafka]\nlinger.ms = 3\n";
    let path = file(&scene, more);
    let worker = worker(&scene, &path)
        .with_variable("PROCESSOR_SESSION_TIMEOUT", "4s")
        .with_variable("PROCESSOR_HEARTBEAT_INTERVAL", "1s")
        .with("heartbeat-interval", "900ms");
    let output = config(&worker, &["--json", "--heartbeat-interval", "900ms"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found(&listed, "max.poll.interval"), ("5m", "default"));
    assert_eq!(found(&listed, "batch.records.max"), ("50000", "code"));
    assert_eq!(found(&listed, "threads"), ("2", "file"));
    assert_eq!(found(&listed, "kafka.linger.ms"), ("3", "file"));
    assert_eq!(found(&listed, "session.timeout"), ("4s", "environment"));
    assert_eq!(found(&listed, "heartbeat.interval"), ("900ms", "command-line"));
    assert_eq!(found(&listed, "instance.id"), ("-", "default"));
    let table = text(&config(&worker, &[]).stdout);
    assert!(table.contains(&format!("{path}:4")) && table.contains("PROCESSOR_SESSION_TIMEOUT"), "{table}");

    let running = worker.start();
    scene.await_outputs(2_000, &[&running]);
    let log = running.log_since_start();
    for words in ["2 stream thread(s)", "session 4s, heartbeat 900ms"] {
        assert!(log.contains(words), "'{words}' is not in:\n{log}");
    }
    running.stop().expect("a clean stop");
    scene.verify(&["one"]);
}

#[test]
fn what_is_unknown_or_wrong_is_refused_with_its_place_and_the_nearest_name() {
    let scene = Scene::new("unknown");
    let path = file(&scene, "sesion.timeout = \"9s\"\n[kafka]\nlingr.ms = 3\n");
    let worker = worker(&scene, &path).with_variable("PROCESSOR_THREDS", "2");
    let output = config(&worker, &[]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()));
    for said in [text(&output.stderr), worker.refused(2)] {
        for words in [
            format!("{path}:4: there is no setting 'sesion.timeout' (the nearest is 'session.timeout')"),
            format!("{path}:6: librdkafka has no property lingr.ms (the nearest is 'linger.ms')"),
            "PROCESSOR_THREDS: no setting has this variable (the nearest is 'PROCESSOR_THREADS')".to_owned(),
        ] {
            assert!(said.contains(&words), "'{words}' is not in:\n{said}");
        }
    }
    assert!(!scene.state_dir("one").exists(), "nothing was begun");
}

#[test]
fn secrets_are_in_no_log_and_no_listing() {
    let mut scene = Scene::new("secrets");
    scene.produce(100);
    let password = scene.dir.join("password");
    fs::write(&password, "hunter2\n").expect("the test's directory can be written");
    let more = format!("[kafka]\nsasl.password = \"file:{}\"\nssl.key.password = \"hunter3\"\n", password.display());
    let path = file(&scene, &more);
    let worker = worker(&scene, &path)
        .with_variable("KEYSTORE_PASSWORD", "hunter4")
        .with_variable("PROCESSOR_KAFKA_SSL_KEYSTORE_PASSWORD", "env:KEYSTORE_PASSWORD")
        .with_variable("RUST_LOG", "trace");
    for options in [&["--json"][..], &[]] {
        let output = config(&worker, options);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success() && said.contains(&format!("file:{}", password.display())), "{said}");
        assert!(said.contains("(hidden)") && !said.contains("hunter"), "{said}");
    }
    let running = worker.start();
    scene.await_outputs(100, &[&running]);
    assert!(!running.log().contains("hunter"), "a secret is in {}", worker.log.display());
    running.stop().expect("a clean stop");

    fs::remove_file(&password).expect("it was written");
    let said = worker.refused(2);
    assert!(said.contains("the secret sasl.password: cannot read file:"), "{said}");
}

#[test]
fn a_strict_worker_refuses_a_single_node_and_says_what_mends_it() {
    let mut scene = Scene::new("strict");
    scene.produce(100);
    let path = file(&scene, "");
    let said = worker(&scene, &path).with_flag("strict").refused(1);
    let names = format!("{} (1), {} (1)", scene.input(), scene.output());
    for words in [
        "strict = true",
        &format!("replication factor under 3: {} (1), {names}", scene.changelog()),
        "kafka-reassign-partitions --bootstrap-server",
        "min.insync.replicas under 2",
        "--add-config min.insync.replicas=2",
    ] {
        assert!(said.contains(words), "'{words}' is not in:\n{said}");
    }
    assert!(scene.kafka.partition_count(&scene.changelog()).is_err(), "nothing was begun");

    let running = worker(&scene, &path).start();
    scene.await_outputs(100, &[&running]);
    let log = running.log_since_start();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    assert_eq!(warnings.len(), 2, "one line for each kind of finding: {warnings:?}");
    assert!(log.contains("offsets.retention.minutes=10080"), "{log}");
    running.stop().expect("a clean stop");
    scene.verify(&["one"]);
}
