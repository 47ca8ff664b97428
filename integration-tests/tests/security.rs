//! A cluster with TLS, logins and an authorizer: an application runs with exactly the rights that `deploy/acls` prints, all
//! its commands log in by the same settings, and whatever is missing or wrong is one clear line.

use std::fs;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use processor_integration_tests::broker::secure::{PASSWORD, SUPER_PASSWORD, SUPER_USER, SecureCluster, USER};
use processor_integration_tests::broker::test_dir;
use processor_integration_tests::client::create_topic;
use processor_integration_tests::scene::{PATIENCE, Scene};
use processor_integration_tests::tokens::TokenEndpoint;
use processor_integration_tests::worker::{WorkerConfig, await_condition, without_settings};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

fn cluster() -> &'static SecureCluster {
    static CLUSTER: OnceLock<SecureCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let started = test_dir("secure").and_then(SecureCluster::start);
        started.unwrap_or_else(|error| panic!("the secure Kafka did not start: {error:#}"))
    })
}

fn scene(name: &str, servers: &str) -> Scene {
    Scene::behind(name, &cluster().kafka.bootstrap_servers(), servers)
}

/// A worker that logs in with SCRAM. Its settings come from a file, the environment and the command line, the password from a
/// file of its own.
fn scram(scene: &Scene, worker: &str) -> WorkerConfig {
    let (password, file) = (scene.dir.join("password"), scene.dir.join("app.toml"));
    fs::write(&password, format!("{PASSWORD}\n")).expect("the test's directory can be written");
    let text = format!(
        "[kafka]\nsecurity.protocol = \"sasl_ssl\"\nsasl.mechanism = \"SCRAM-SHA-512\"\nsasl.password = \"file:{}\"\n",
        password.display()
    );
    fs::write(&file, text).expect("the test's directory can be written");
    let config = scene.worker(worker).with_variable("PROCESSOR_CONFIG", file.to_str().expect("a path of text"));
    let config = config.with_variable("PROCESSOR_KAFKA_SASL_USERNAME", USER);
    config.with("kafka", format!("ssl.ca.location={}", cluster().ca().display()))
}

/// A worker with no settings but these properties.
fn with_properties(scene: &Scene, properties: &[(&str, String)]) -> WorkerConfig {
    let property =
        |config: WorkerConfig, (name, value): &(&str, String)| config.with("kafka", format!("{name}={value}"));
    properties.iter().fold(scene.worker("one"), property)
}

/// Runs another command of the worker's program in its environment. `options` are those of the worker that it takes, too.
fn command(worker: &WorkerConfig, arguments: &[&str], options: &[&str]) -> Output {
    let mut command = Command::new(&worker.program);
    without_settings(&mut command);
    command.args(arguments).envs(worker.variables.iter().cloned());
    for pair in worker.arguments.chunks(2) {
        if options.is_empty() || options.contains(&pair[0].as_str()) {
            command.args(pair);
        }
    }
    command.output().expect("the program runs")
}

const CONNECTION: &[&str] = &["--bootstrap-servers", "--application-id", "--kafka"];

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[track_caller]
fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "'{word}' is not in:\n{text}");
    }
}

/// Grants the user what `deploy/acls` prints, and nothing else.
fn grant(scene: &Scene, options: &str) {
    let line = format!(
        "./acls --bootstrap-server {} --application-id {} --principal User:{USER} --input {} --output {} {options} | bash -e",
        scene.bootstrap,
        scene.name,
        scene.input(),
        scene.output()
    );
    cluster().shell(&line).expect("the rights are granted");
}

/// Changes one right of the user.
fn acl(scene: &Scene, change: &str) {
    let line = format!("kafka-acls --bootstrap-server {} --allow-principal User:{USER} {change}", scene.bootstrap);
    cluster().shell(&line).expect("the right is changed");
}

/// Two workers have the rights that `deploy/acls` prints: they make the changelog, process, one is killed inside a
/// transaction, the other fences it, and it comes back.
#[test]
fn the_rights_that_are_printed_are_enough() {
    let mut scene = scene("rights", &cluster().sasl_servers());
    grant(&scene, "");
    let config = |worker| {
        let config = scram(&scene, worker).with("instance-id", worker).with("pause-us", 300);
        let config = config.with_time("session-timeout", Duration::from_secs(3));
        config
            .with_time("heartbeat-interval", Duration::from_secs(1))
            .with_time("transaction-timeout", Duration::from_secs(20))
    };
    let (one, two) = (config("one"), config("two"));
    let watch = scene.watch();
    let load = scene.load(600);
    let (mut killed, other) = (one.start(), two.start());
    killed.await_running(2, PATIENCE).expect("two of four partitions");
    other.await_running(2, PATIENCE).expect("two of four partitions");
    // Who has committed is known to its successor.
    let done = scene.offsets_done();
    scene.await_outputs(done + 1_000, &[&killed, &other]);
    let caught = scene.freeze_in_transaction(&mut killed);
    killed.kill().expect("it is ours");
    other.await_since_start("fencing it", PATIENCE).expect("the other one takes all over");
    other.await_running(4, PATIENCE).expect("all tasks run");
    let back = one.start();
    back.await_running(2, PATIENCE).expect("it is back");
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &[&back, &other]);
    let logs = back.log() + &other.log();
    back.stop().expect("a clean stop");
    other.stop().expect("a clean stop");
    scene.assert_aborted(&[caught]);
    watch.finish(5);
    scene.verify(&["one", "two"]);
    assert!(!logs.contains(PASSWORD), "the password is in a log");
    assert!(!logs.contains("AUTHORIZATION_FAILED"), "a right was missing:\n{logs}");
    assert!(!logs.contains("do not say that transaction.partition.verification.enable"), "{logs}");
    let listed =
        said(&command(&one, &["config"], &["--kafka", "--bootstrap-servers", "--application-id", "--state-dir"]));
    assert_says(&listed, &["SCRAM-SHA-512", "file:", USER]);
    assert!(!listed.contains(PASSWORD), "{listed}");
}

/// One right after the other is taken away: each time the worker stops with the same words that say which, and how it is
/// granted, and with the right it runs.
#[test]
fn a_right_that_is_missing_is_one_line_with_the_next_step() {
    let mut scene = scene("missing-right", &cluster().sasl_servers());
    scene.produce(500);
    grant(&scene, "");
    let worker = scram(&scene, "one").with("instance-id", "one");
    let prefix = format!("--topic {}- --resource-pattern-type prefixed", scene.name);
    let ids = format!("--transactional-id {}: --resource-pattern-type prefixed", scene.name);
    let all: [(&str, String, &[&str]); 3] = [
        ("Create", prefix.clone(), &["cannot make the topic missing-right-accounts-changelog", "deploy/acls"]),
        ("Read", format!("--group {}", scene.name), &["GROUP_AUTHORIZATION_FAILED", "Read the group", "deploy/acls"]),
        (
            "Write --operation Describe",
            ids,
            &["TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "Write and Describe", "deploy/acls"],
        ),
    ];
    for (operations, resource, words) in all {
        acl(&scene, &format!("--remove --force --operation {operations} {resource}"));
        let log = worker.refused(1);
        assert_says(&log, words);
        let errors: Vec<&str> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
        assert!(errors.len() <= 2, "one line, and the thread's own: {errors:#?}");
        acl(&scene, &format!("--add --operation {operations} {resource}"));
    }
    assert!(scene.committed().is_empty(), "nothing was processed");

    // Topics without the application's prefix have rights of their own.
    for topic in ["foreign-in", "foreign-out"] {
        create_topic(&scene.bootstrap, topic, 4, &[]).expect("the broker makes topics");
    }
    // Each has a name of its own: under one name the second would be given what the first was reading.
    let between = |name: &str, input: &str, output: &str| {
        let mut other = worker.clone();
        for (option, value) in [("--input", input), ("--output", output), ("--instance-id", name)] {
            let place = other.arguments.iter().position(|argument| argument == option).expect("it has all of them");
            other.arguments[place + 1] = value.to_owned();
        }
        other
    };
    let (from, to) = (between("from", "foreign-in", &scene.output()), between("to", &scene.input(), "foreign-out"));
    assert_says(&from.refused(1), &["foreign-in", "TOPIC_AUTHORIZATION_FAILED", "inputs: Read", "deploy/acls"]);
    assert_says(&to.refused(1), &["foreign-out", "TOPIC_AUTHORIZATION_FAILED", "outputs: Write", "deploy/acls"]);
    for topic in ["foreign-in", "foreign-out"] {
        acl(&scene, &format!("--add --operation Describe --topic {topic}"));
    }
    assert_says(&from.refused(1), &["TOPIC_AUTHORIZATION_FAILED", "inputs: Read", "deploy/acls"]);
    assert_says(&to.refused(1), &["foreign-out", "TOPIC_AUTHORIZATION_FAILED", "outputs: Write", "deploy/acls"]);
    assert!(scene.committed().is_empty(), "nothing was processed");

    // The rights on the changelog are the prefix's: without Write the first transaction is refused, and nothing is committed.
    scene.run(&worker).stop().expect("with all rights it runs");
    scene.produce(100);
    let before = scene.committed();
    acl(&scene, &format!("--remove --force --operation Write {prefix}"));
    assert_says(&worker.refused(1), &["TOPIC_AUTHORIZATION_FAILED", "deploy/acls"]);
    assert_eq!(scene.committed(), before);
    acl(&scene, &format!("--add --operation Write {prefix}"));
    scene.run(&worker).stop().expect("with all rights it runs");
    scene.verify(&["one"]);
}

/// Whoever cannot log in, or whom the worker does not trust, is named with what mends it, before anything is begun.
#[test]
fn a_login_that_fails_is_one_line_with_the_next_step() {
    let cluster = cluster();
    let scene = scene("login", &cluster.sasl_servers());
    let ca = cluster.ca().display().to_string();
    let login = |password: &str| {
        vec![
            ("security.protocol", "sasl_ssl".to_owned()),
            ("sasl.mechanism", "SCRAM-SHA-512".to_owned()),
            ("sasl.username", USER.to_owned()),
            ("sasl.password", password.to_owned()),
        ]
    };
    let tls =
        |authority: &str| vec![("security.protocol", "ssl".to_owned()), ("ssl.ca.location", authority.to_owned())];
    let with_ca = |mut properties: Vec<(&'static str, String)>, authority: &str| {
        properties.push(("ssl.ca.location", authority.to_owned()));
        properties
    };
    let at = |servers: &str, properties: &[(&str, String)]| {
        let mut worker = with_properties(&scene, properties);
        worker.arguments[1] = servers.to_owned();
        worker
    };
    let stranger = cluster.stranger_ca().display().to_string();
    let sasl = cluster.sasl_servers();

    let wrong_password = at(&sasl, &with_ca(login("wr0ng"), &ca));
    let begun = Instant::now();
    let log = wrong_password.refused(1);
    assert_says(&log, &["SASL authentication error", "_AUTHENTICATION", "sasl.username and sasl.password"]);
    assert!(!log.contains("wr0ng"), "{log}");
    assert!(begun.elapsed() < Duration::from_secs(10), "it does not wait in vain: {:?}", begun.elapsed());

    let cases: [(&str, WorkerConfig, &[&str]); 5] = [
        (
            "unknown authority",
            at(&sasl, &with_ca(login(PASSWORD), &stranger)),
            &["certificate verify failed", "ssl.ca.location must"],
        ),
        (
            "another host",
            at(&cluster.servers_of_another_name(), &tls(&ca)),
            &["certificate verify failed", "hold each host name"],
        ),
        ("no certificate", at(&cluster.tls_servers(), &tls(&ca)), &["ssl.certificate.location"]),
        ("plaintext at a TLS port", at(&sasl, &[]), &["does security.protocol fit"]),
        ("nobody listens", at("127.0.0.1:9", &[]), &["Connection refused", "are the brokers up"]),
    ];
    for (what, worker, words) in cases {
        let log = worker.refused(1);
        assert_says(&log, words);
        let errors = log.lines().filter(|line| line.contains(" ERROR ")).count();
        assert_eq!(errors, 1, "{what}:\n{log}");
    }

    for (arguments, options) in
        [(&["reset", "--dry-run"][..], &[][..]), (&["dead-letters", "list", "--topic", "login-in"], CONNECTION)]
    {
        let output = command(&wrong_password, arguments, options);
        assert_eq!(output.status.code(), Some(1));
        assert_says(&said(&output), &["_AUTHENTICATION", "sasl.username and sasl.password"]);
    }
    assert!(scene.kafka.partition_count(&scene.changelog()).is_err(), "nothing was begun");
}

/// Names and values of librdkafka's properties.
type Properties = Vec<(&'static str, String)>;

/// PLAIN over TLS, a certificate, and a token of a provider.
#[test]
fn every_way_to_log_in_works_by_settings() {
    let cluster = cluster();
    let ca = ("ssl.ca.location", cluster.ca().display().to_string());
    let (certificate, key) = cluster.client_certificate();
    let client = "sêcret-of-the-client";
    let tokens = TokenEndpoint::start(SUPER_USER, "workers", client).expect("a free port");
    let text = |name: &'static str, value: &str| (name, value.to_owned());
    let ways: [(&str, String, Properties); 3] = [
        (
            "plain",
            cluster.sasl_servers(),
            vec![
                text("security.protocol", "sasl_ssl"),
                text("sasl.mechanism", "PLAIN"),
                text("sasl.username", SUPER_USER),
                text("sasl.password", SUPER_PASSWORD),
            ],
        ),
        (
            "certificate",
            cluster.tls_servers(),
            vec![
                text("security.protocol", "ssl"),
                ("ssl.certificate.location", certificate.display().to_string()),
                ("ssl.key.location", key.display().to_string()),
            ],
        ),
        (
            "token",
            cluster.oauth_servers(),
            vec![
                text("security.protocol", "sasl_ssl"),
                text("sasl.mechanism", "OAUTHBEARER"),
                text("sasl.oauthbearer.method", "oidc"),
                text("sasl.oauthbearer.client.id", "workers"),
                text("sasl.oauthbearer.client.secret", client),
                ("sasl.oauthbearer.token.endpoint.url", tokens.url.clone()),
            ],
        ),
    ];
    for (name, servers, mut properties) in ways {
        let mut scene = scene(&format!("way-{name}"), &servers);
        scene.produce(500);
        properties.push(ca.clone());
        let worker = with_properties(&scene, &properties);
        let running = scene.run(&worker);
        let log = running.log();
        running.stop().expect("a clean stop");
        scene.verify(&["one"]);
        for secret in [SUPER_PASSWORD, client] {
            assert!(!log.contains(secret), "{name}: a secret is in the log");
        }
    }
}

/// Writes one dead letter of the scene's input, as docs/formats.md describes it.
fn write_letter(scene: &Scene, topic: &str) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &scene.bootstrap).create().expect("the settings are sound");
    let input = scene.input();
    let headers = [
        ("processor-topic", input.as_str()),
        ("processor-partition", "0"),
        ("processor-offset", "0"),
        ("processor-timestamp", "1000000"),
        ("processor-task", "entries_0"),
        ("processor-node", "ledger"),
        ("processor-kind", "process"),
        ("processor-error", "the account is closed"),
    ];
    let headers =
        headers.iter().fold(OwnedHeaders::new(), |list, (key, value)| list.insert(Header { key, value: Some(*value) }));
    let value = 7_i64.to_be_bytes();
    let record = BaseRecord::to(topic).partition(0).key("account-1").payload(&value[..]).headers(headers);
    producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    producer.flush(PATIENCE).expect("the broker takes the letter");
}

/// `dead-letters` and `reset` log in by the same file, variables and options as `run`, and need what `deploy/acls` prints.
#[test]
fn the_commands_log_in_by_the_settings_of_the_application() {
    let mut scene = scene("secure-commands", &cluster().sasl_servers());
    let failed = format!("{}-failed", scene.name);
    create_topic(&scene.bootstrap, &failed, 1, &[]).expect("the broker makes topics");
    write_letter(&scene, &failed);
    grant(&scene, &format!("--dead-letter {failed} --replay --delete"));
    let worker = scram(&scene, "one");
    let letters = |arguments: &[&str]| {
        let all = [&["dead-letters"], arguments, &["--topic", &failed, "--json"]].concat();
        command(&worker, &all, CONNECTION)
    };
    assert_eq!(json(&letters(&["list"]))["letters"][0]["letter"], "0:0");
    assert_eq!(json(&letters(&["replay", "--all"]))["replayed"], 1);
    assert_eq!(json(&letters(&["show", "0:0"]))["state"], "replayed");
    let misspelt = letters(&["list", "--kafka", "sasl.pasword=x"]);
    assert_eq!(misspelt.status.code(), Some(2));
    assert_says(&said(&misspelt), &["no property sasl.pasword (the nearest is 'sasl.password')"]);

    scene.produced += 1;
    scene.run(&worker).stop().expect("a clean stop");
    scene.verify(&["one"]);
    let reset = || command(&worker, &["reset", "--yes"], &[]);
    let through = await_condition("the reset", PATIENCE, || Ok(reset().status.success()));
    through.unwrap_or_else(|error| panic!("{error:#}: {}", said(&reset())));
    assert!(scene.committed().is_empty(), "it begins anew");
    scene.kafka.partition_count(&scene.changelog()).expect_err("the changelog is gone");
}
