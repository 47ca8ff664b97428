//! The commands of an application on a real broker: what they show of state that a worker writes, what a reset leaves,
//! and that a dead letter goes back once, whoever is killed and whoever else replays.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};

use processor_integration_tests::client::{Isolation, create_topic};
use processor_integration_tests::oracle;
use processor_integration_tests::scene::{PATIENCE, Scene};
use processor_integration_tests::worker::{await_condition, without_settings};
use processor_runtime::state::{application_directory, tasks};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

/// What a command has answered.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn start(scene: &Scene, arguments: &[&str]) -> Child {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(scene.worker("one").program).args(arguments);
    without_settings(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program is built")
}

fn answer(child: Child) -> Answer {
    let output = child.wait_with_output().expect("a process of ours can be waited for");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Answer { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn command(scene: &Scene, arguments: &[&str]) -> Answer {
    answer(start(scene, arguments))
}

/// A worker runs, and its stores are looked at with nothing but the state directory: what is seen is what the input says.
#[test]
fn stores_are_shown_while_a_worker_has_them() {
    let mut scene = Scene::new("commands-stores");
    scene.produce(3_000);
    let mut worker = scene.worker("one").start();
    scene.await_outputs(3_000, &[&worker]);
    let input = scene.read(&scene.input());
    let expected = oracle::expected_ledger_state(&input);
    let state_dir = scene.state_dir("one");
    let state_dir = state_dir.to_str().expect("the target directory's name is text");
    let stores = |arguments: &[&str]| {
        let all = [&["stores"], arguments, &["--state-dir", state_dir, "--json"]].concat();
        command(&scene, &all)
    };
    // The last batch is applied a moment after its commit.
    let seen = await_condition("the stores to hold all", PATIENCE, || {
        Ok(stores(&["count", "accounts"]).json()["entries"] == expected.len())
    });
    seen.expect("every account is in the store");
    let listed = stores(&["list"]).json();
    let of_tasks: BTreeSet<&str> =
        listed["stores"].as_array().expect("a list").iter().filter_map(|row| row["task"].as_str()).collect();
    assert_eq!(of_tasks.len(), 4, "{listed}");
    let range = stores(&["range", "accounts", "--limit", "7"]).json();
    assert_eq!(range["entries"].as_array().map(Vec::len), Some(7));
    assert_eq!(range["more"], expected.len() - 7);
    let entry = &range["entries"][0];
    let one = stores(&["get", "accounts", entry["key"].as_str().expect("accounts have text keys")]).json();
    assert_eq!(&one["entries"][0], entry);
    assert_eq!(stores(&["get", "accounts", "nobody"]).code, Some(1));
    assert_eq!(stores(&["get", "nothing", "nobody"]).code, Some(2));
    assert!(worker.is_alive(), "nobody has disturbed it");
    worker.stop().expect("it stops cleanly");
    scene.verify(&["one"]);
}

fn reset(scene: &Scene, options: &[&str]) -> Answer {
    let config = scene.worker("one");
    let of_run = config.arguments.iter().map(String::as_str);
    command(scene, &["reset"].into_iter().chain(options.iter().copied()).chain(of_run).collect::<Vec<_>>())
}

/// A reset is refused while a worker runs, changes nothing when dry, keeps workers out when it is cut short, and, when it
/// is through, the application begins anew and comes to the same state.
#[test]
fn a_reset_begins_anew_and_nothing_starts_in_the_middle_of_it() {
    let mut scene = Scene::new("commands-reset");
    scene.produce(2_000);
    let worker = scene.worker("one").start();
    scene.await_outputs(2_000, &[&worker]);
    let refused = reset(&scene, &["--yes"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.err.contains(&format!("{}:", scene.name)) && refused.err.contains("stop its workers"),
        "{refused:?}"
    );
    let dry = reset(&scene, &["--dry-run"]);
    assert_eq!(dry.code, Some(0), "a look is allowed: {dry:?}");
    assert!(dry.out.contains("delete topic") && dry.out.contains("stop its workers"), "{dry:?}");
    worker.stop().expect("it stops cleanly");

    let before = scene.committed();
    let directory = application_directory(&scene.state_dir("one"), &scene.name);
    assert_eq!(reset(&scene, &[]).code, Some(2), "it asks, and nobody is there to answer");
    let dry = reset(&scene, &["--dry-run", "--json"]).json();
    assert_eq!(dry["done"], false);
    assert_eq!(dry["members"], json!([]));
    let steps: Vec<&str> =
        dry["steps"].as_array().expect("a list").iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(steps, ["bar", "delete topic", "remove state", "forget offsets"]);
    assert_eq!(scene.committed(), before);
    scene.kafka.partition_count(&scene.changelog()).expect("the changelog is there");
    assert_eq!(tasks(&directory).expect("it can be listed").len(), 4);

    // A reset that is cut short behind its first step.
    scene.set_offsets_with(&before, "a reset was begun: run `reset` again to finish it");
    let mut barred = scene.worker("one").start();
    let status = barred.wait(PATIENCE).expect("the worker stops by itself");
    assert!(!status.success() && barred.log_since_start().contains("run `reset` again"), "{}", barred.log_tail(20));
    // It stopped with an error and did not leave the group: it counts until its session times out.
    let through = await_condition("the reset", PATIENCE, || Ok(reset(&scene, &["--yes"]).code == Some(0)));
    through.unwrap_or_else(|error| panic!("{error:#}: {:?}", reset(&scene, &["--dry-run"])));

    assert_eq!(scene.committed(), BTreeMap::new());
    scene.kafka.partition_count(&scene.changelog()).expect_err("the changelog is gone");
    assert_eq!(tasks(&directory).expect("it can be listed"), []);
    assert_eq!(scene.outputs(), 2_000, "outputs stay");

    let worker = scene.worker("one").start();
    scene.await_outputs(2_000, &[&worker]);
    worker.stop().expect("it stops cleanly");
    assert_eq!(scene.outputs(), 4_000, "everything was processed again");
    let input = scene.read(&scene.input());
    let expected = oracle::expected_ledger_state(&input);
    let changelog = scene.read(&scene.changelog());
    let folded = oracle::fold_changelog(&changelog).expect("a changelog of accounts");
    oracle::check_ledger_state(&expected, &folded).assert_ok();
    oracle::check_ledger_state(&expected, &scene.stores(&["one"])).assert_ok();
}

/// How many letters: many transactions of a replay.
const LETTERS: u64 = 20_000;

fn failed_topic(scene: &Scene) -> String {
    format!("{}-failed", scene.name)
}

/// Writes dead letters as docs/formats.md describes them, of records that came from the scene's input.
fn write_letters(scene: &Scene) {
    let topic = failed_topic(scene);
    create_topic(&scene.bootstrap, &topic, 2, &[("retention.ms", "-1")]).expect("the broker makes topics");
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", &scene.bootstrap).set("queue.buffering.max.messages", "1000000");
    let producer: BaseProducer = settings.create().expect("the settings are sound");
    for number in 0..LETTERS {
        let text = |name: &str, value: String| (name.to_owned(), value);
        let headers = [
            text("trace", format!("t{number}")),
            text("processor-topic", scene.input()),
            text("processor-partition", (number % 4).to_string()),
            text("processor-offset", (number / 4).to_string()),
            text("processor-timestamp", (1_000_000 + number).to_string()),
            text("processor-task", format!("entries_{}", number % 4)),
            text("processor-node", "ledger".to_owned()),
            text("processor-kind", "process".to_owned()),
            text("processor-error", "the account is closed".to_owned()),
        ];
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |list, (key, value)| list.insert(Header { key, value: Some(value) }));
        let key = format!("account-{number}");
        let value = i64::try_from(number).expect("few letters").to_be_bytes();
        let record =
            BaseRecord::to(&topic).partition((number % 2) as i32).timestamp(1_000_000 + number as i64).headers(headers);
        producer.send(record.key(&key).payload(&value[..])).map_err(|(error, _)| error).expect("room in the queue");
    }
    producer.flush(PATIENCE).expect("the broker takes the letters");
}

fn dead_letters<'a>(scene: &'a Scene, topic: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    let place = ["--topic", topic, "--json", "--bootstrap-servers", &scene.bootstrap, "--application-id", &scene.name];
    [&["dead-letters"], arguments, &place[..]].concat()
}

/// The records of the input as a `read_committed` reader sees them, each of which must be one of the letters' records, and
/// there once.
fn replayed(scene: &Scene) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    for log in scene.read(&scene.input()) {
        for record in log.records {
            let value = record.value.expect("no record's value is null");
            let number = u64::from_be_bytes(value.try_into().expect("values have 8 bytes"));
            assert!(numbers.insert(number), "{number} was replayed twice");
            assert_eq!(log.partition, (number % 4) as i32);
            assert_eq!(record.key, Some(format!("account-{number}").into_bytes()));
            assert_eq!(record.timestamp, 1_000_000 + number as i64);
            assert_eq!(record.headers, [("trace".to_owned(), Some(format!("t{number}").into_bytes()))]);
        }
    }
    numbers
}

fn written(scene: &Scene) -> i64 {
    let marks = scene.kafka.watermarks(&scene.input(), Isolation::ReadUncommitted).expect("the broker answers");
    marks.values().map(|range| range.end).sum()
}

/// Letters are listed, shown, replayed one by one; then all of them, by a replay that is killed inside a transaction, by two
/// at once, and by one at the end. Every record is back once, as it was.
#[test]
fn a_dead_letter_goes_back_once_whoever_is_killed_and_whoever_else_replays() {
    let scene = Scene::new("commands-letters");
    write_letters(&scene);
    let topic = failed_topic(&scene);
    let run = |arguments: &[&str]| command(&scene, &dead_letters(&scene, &topic, arguments));

    let listed = run(&["list", "--limit", "5"]).json();
    assert_eq!((listed["letters"].as_array().map(Vec::len), &listed["more"]), (Some(5), &Value::from(LETTERS - 5)));
    let shown = run(&["show", "1:0"]).json();
    assert_eq!(
        (&shown["node"], &shown["key"], &shown["state"]),
        (&"ledger".into(), &"account-1".into(), &"open".into())
    );
    assert_eq!(shown["headers"], serde_json::json!([["trace", "t1"]]));
    assert_eq!(run(&["replay", "--letter", "1:0,0:0", "--dry-run"]).json()["letters"], 2);
    assert_eq!(written(&scene), 0, "a dry run writes nothing");
    assert_eq!(run(&["replay", "--letter", "1:0"]).json()["replayed"], 1);
    assert_eq!(replayed(&scene), BTreeSet::from([1]));
    assert_eq!(run(&["replay", "--letter", "1:0"]).json()["replayed"], 0, "it is done");
    assert_eq!(run(&["show", "1:0"]).json()["state"], "replayed");
    let told = dead_letters(&scene, &topic, &["replay", "--letter", "1:0"]);
    let told = command(&scene, &told.into_iter().filter(|word| *word != "--json").collect::<Vec<_>>());
    assert!(told.out.contains("1:0 was replayed before"), "{told:?}");
    assert_eq!(run(&["show", "0:999999999"]).code, Some(1));
    let untold = run(&["replay"]);
    assert_eq!(untold.code, Some(2), "it must be told which");
    assert!(untold.err.contains("--letter") && untold.err.contains("--all"), "{untold:?}");
    assert_eq!(run(&["discard", "--letter", "1:1"]).json()["discarded"], 1);
    assert_eq!(run(&["show", "1:1"]).json()["state"], "discarded");
    assert_eq!(run(&["replay", "--letter", "1:1"]).json()["replayed"], 0, "nobody sends it back");
    assert_eq!(replayed(&scene), BTreeSet::from([1]));

    let before = written(&scene);
    let mut killed = start(&scene, &dead_letters(&scene, &topic, &["replay", "--all"]));
    await_condition("the replay to write", PATIENCE, || Ok(written(&scene) > before)).expect("it writes");
    killed.kill().expect("it is ours");
    killed.wait().expect("it is ours");
    let after_kill = replayed(&scene).len() as u64;
    assert!(after_kill < LETTERS, "it was killed before it was through");

    let two = [
        start(&scene, &dead_letters(&scene, &topic, &["replay", "--all"])),
        start(&scene, &dead_letters(&scene, &topic, &["replay", "--all"])),
    ];
    let ended = two.map(answer);
    assert!(ended.iter().any(|answer| answer.code == Some(0)), "{ended:?}");
    assert!(ended.iter().all(|answer| answer.code == Some(0) || answer.err.contains("another replay")), "{ended:?}");
    assert_eq!(run(&["replay", "--all"]).code, Some(0));
    assert_eq!(replayed(&scene), (0..LETTERS).filter(|number| *number != 3).collect(), "1:1 is the letter of 3");
    let left = run(&["list"]).json();
    assert_eq!((left["letters"].as_array().map(Vec::len), &left["others"]), (Some(0), &Value::from(0)));
}
