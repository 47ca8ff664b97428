//! `stores --url` against real servers of two workers, whose state is in memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use processor_core::ids::{Partition, TopicPartition};
use serde_json::{Value, json};

use super::*;
use crate::query::fixture::{Maps, running, worker};
use crate::query::{Owners, Server, Shown, Token};
use crate::status::ThreadState;

const TOKEN: &str = "a-token-of-24-characters";

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    stores: StoresArgs,
}

/// Runs a command line; what it wrote, and how it ended.
fn stores(arguments: &[&str]) -> (String, Result<(), CommandError>) {
    let line = Line::try_parse_from([&["stores"], arguments].concat()).unwrap_or_else(|error| panic!("{error}"));
    let mut out = Vec::new();
    let ended = run(&line.stores, |_| panic!("no topology is needed to ask a worker"), &mut out);
    (String::from_utf8(out).expect("text"), ended)
}

/// The document that it wrote, and the sentence that it ended with.
fn told(arguments: &[&str]) -> (Value, Option<String>) {
    let (out, ended) = stores(&[arguments, &["--json"]].concat());
    let document = if out.is_empty() { Value::Null } else { serde_json::from_str(&out).expect("a document") };
    (document, ended.err().map(|error| error.to_string()))
}

#[track_caller]
fn complete(arguments: &[&str]) -> Value {
    let (document, error) = told(arguments);
    assert_eq!(error, None);
    document
}

/// Workers of one application, each with a state of its own, that name each other as the group does.
struct Fleet {
    owners: Arc<Mutex<Owners>>,
    servers: Vec<Server>,
}

impl Fleet {
    fn new() -> Self {
        Self { owners: Arc::default(), servers: Vec::new() }
    }

    fn with(mut self, mut shown: Shown, token: Option<&str>) -> Self {
        let owners = self.owners.clone();
        shown.owners = Box::new(move || Ok(Arc::new(owners.lock().unwrap_or_else(PoisonError::into_inner).clone())));
        let token = token.map(token_of);
        let loopback = "127.0.0.1:0".parse().expect("an address");
        self.servers.push(Server::start(loopback, token, shown).expect("a free port"));
        self
    }

    /// Of two tasks, each on one worker: `a` and `c`, `b` and `d`.
    fn pair(token: Option<&str>) -> Self {
        let of = |partition, one: &str, two: &str| {
            let state = Maps::default().sum(one, 1).sum(two, 2);
            worker(2, ThreadState::Running, vec![running(partition, state)])
        };
        let fleet = Self::new().with(of(0, "a", "c"), token).with(of(1, "b", "d"), token);
        fleet.owns(0, &format!("app:one:0@{}", fleet.at(0)));
        fleet.owns(1, &format!("app:two:0@{}", fleet.at(1)));
        fleet
    }

    /// The group says that this member owns a partition.
    fn owns(&self, partition: i32, client_id: &str) {
        let partition = TopicPartition::new("in", Partition::new(partition));
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, client_id.to_owned());
    }

    fn at(&self, worker: usize) -> String {
        self.servers[worker].address().to_string()
    }

    fn url(&self, worker: usize) -> String {
        format!("http://{}", self.at(worker))
    }
}

fn token_of(text: &str) -> Token {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("it can be written");
    Token::read(file.path()).expect("long enough")
}

fn entry(task: &str, key: &str, value: u8) -> Value {
    json!({ "task": task, "key": key, "value": value })
}

#[test]
fn whichever_worker_is_asked_the_answer_is_the_whole() {
    let fleet = Fleet::pair(None);
    let all = [entry("lines_0", "a", 1), entry("lines_0", "c", 2), entry("lines_1", "b", 1), entry("lines_1", "d", 2)];
    for url in [fleet.url(0), fleet.url(1)] {
        for entry in &all {
            let found = complete(&["get", "sums", entry["key"].as_str().expect("a text"), "--url", &url]);
            assert_eq!(found, json!({ "store": "sums", "entries": [entry] }));
        }
        let range = complete(&["range", "sums", "--url", &url]);
        assert_eq!(range, json!({ "store": "sums", "entries": all, "more": 0 }));
        let range = complete(&["range", "sums", "--limit", "1", "--from", "b", "--url", &url]);
        assert_eq!(range, json!({ "store": "sums", "entries": [all[1]], "more": 2 }));
        let range = complete(&["range", "sums", "--reverse", "--limit", "3", "--url", &url]);
        assert_eq!(range, json!({ "store": "sums", "entries": [all[1], all[0], all[3]], "more": 1 }));
        let tasks = json!([{ "task": "lines_0", "entries": 2 }, { "task": "lines_1", "entries": 2 }]);
        assert_eq!(
            complete(&["count", "sums", "--url", &url]),
            json!({ "store": "sums", "entries": 4, "tasks": tasks })
        );
        let listed = complete(&["list", "--url", &url]);
        let of = |row: &Value| (row["task"].clone(), row["store"].clone(), row["entries_estimated"].clone());
        let rows: Vec<_> = listed["stores"].as_array().expect("rows").iter().map(of).collect();
        let expected =
            [("lines_0", "blobs", 0), ("lines_0", "sums", 2), ("lines_1", "blobs", 0), ("lines_1", "sums", 2)];
        assert_eq!(rows, expected.map(|(task, store, entries)| (json!(task), json!(store), json!(entries))));
        let (_, absent) = told(&["get", "sums", "e", "--url", &url]);
        assert_eq!(absent.as_deref(), Some("store 'sums' has no value of e"));
    }
    let (table, ended) = stores(&["count", "sums", "--url", &fleet.url(0)]);
    assert!(ended.is_ok() && table.lines().last().is_some_and(|line| line.starts_with("all") && line.ends_with('4')));
}

#[test]
fn pages_make_up_the_whole() {
    let keys: Vec<String> = (0..2_500).map(|key| format!("key-{key:04}")).collect();
    let state = keys.iter().fold(Maps::default(), |state, key| state.sum(key, 1));
    let fleet = Fleet::new().with(worker(1, ThreadState::Running, vec![running(0, state)]), None);
    let range = complete(&["range", "sums", "--limit", "2200", "--url", &fleet.url(0)]);
    let shown = range["entries"].as_array().expect("entries").iter().map(|entry| entry["key"].clone());
    assert!(shown.eq(keys[..2_200].iter().map(|key| json!(key))));
    assert_eq!(range["more"], 300);
    assert_eq!(complete(&["count", "sums", "--url", &fleet.url(0)])["entries"], 2_500);
}

/// A member of the group can say what it likes: the token goes to others only for whoever says so.
#[test]
fn a_token_goes_to_other_workers_only_with_follow() {
    let fleet = Fleet::pair(Some(TOKEN));
    // One that would learn the token if it were asked.
    let spy = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    spy.set_nonblocking(true).expect("it can be set");
    fleet.owns(1, &format!("app:two:0@{}", spy.local_addr().expect("it has one")));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), TOKEN).expect("it can be written");
    let url = fleet.url(0);
    let with_token = ["--url", &url, "--token-file", file.path().to_str().expect("text")];
    for verb in [&["count", "sums"][..], &["range", "sums"], &["get", "sums", "b"], &["list"]] {
        let (document, error) = told(&[verb, &with_token].concat());
        let error = error.expect("it is not all");
        assert!(error.contains("lines_1") && error.contains("--follow"), "{error}");
        assert_eq!(document["missing"][0]["task"], "lines_1", "{document}");
    }
    assert!(spy.accept().is_err(), "nobody has asked it");
    assert_eq!(complete(&[&["get", "sums", "a"], &with_token[..]].concat())["entries"][0]["value"], 1);

    fleet.owns(1, &format!("app:two:0@{}", fleet.at(1)));
    let followed = complete(&[&["count", "sums", "--follow"], &with_token[..]].concat());
    assert_eq!(followed["entries"], 4);
    let (_, error) = told(&["count", "sums", "--url", &url]);
    assert!(error.expect("it has none").contains("--token-file"));
}

#[test]
fn a_task_that_has_moved_is_followed() {
    let fleet = Fleet::pair(None);
    let idle = worker(2, ThreadState::Running, Vec::new());
    let fleet = fleet.with(idle, None);
    // A third worker knows the owners of both.
    assert_eq!(complete(&["count", "sums", "--url", &fleet.url(2)])["entries"], 4);
}

#[test]
fn what_does_not_pass_in_time_ends_with_a_sentence() {
    let rebalancing = Fleet::new().with(worker(2, ThreadState::Rebalancing, Vec::new()), None);
    let began = Instant::now();
    let (document, error) = told(&["count", "sums", "--url", &rebalancing.url(0), "--wait", "300ms"]);
    let error = error.expect("it never settles");
    assert!(error.contains("still after 300ms") && error.contains("rebalance") && error.contains("--wait"), "{error}");
    assert_eq!(document, Value::Null);

    // Nobody owns the other task.
    let fleet = Fleet::pair(None);
    fleet.owners.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let (document, error) = told(&["count", "sums", "--url", &fleet.url(0), "--wait", "300ms"]);
    let error = error.expect("a task is missing");
    assert!(error.contains("lines_1: the group has no owner for it; still so after 300ms"), "{error}");
    assert_eq!((&document["entries"], &document["tasks"]), (&json!(2), &json!([{ "task": "lines_0", "entries": 2 }])));

    // Its owner is gone, and the group does not know it yet.
    let mut fleet = Fleet::pair(None);
    let gone = fleet.servers.pop().expect("two");
    let address = gone.address();
    drop(gone);
    for verb in [&["count", "sums"][..], &["range", "sums"], &["get", "sums", "b"], &["list"]] {
        let (_, error) = told(&[verb, &["--url", &fleet.url(0), "--wait", "300ms"]].concat());
        let error = error.expect("a task is missing");
        assert!(error.contains(&format!("lines_1: http://{address} cannot be reached")), "{error}");
    }
    let (found, error) = told(&["get", "sums", "a", "--url", &fleet.url(0), "--wait", "300ms"]);
    assert_eq!((&found["entries"], error), (&json!([entry("lines_0", "a", 1)]), None), "it is there");
    assert_eq!(found["missing"][0]["task"], "lines_1", "and what was not asked is said");
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());

    // The worker that was named is gone itself.
    let url = fleet.url(0);
    drop(fleet);
    let (_, error) = told(&["count", "sums", "--url", &url]);
    assert!(error.expect("nobody is there").contains("cannot be reached"));
}

#[test]
fn who_is_no_owner_is_not_believed() {
    let fleet = Fleet::pair(None);
    let count = |fleet: &Fleet| told(&["count", "sums", "--url", &fleet.url(0), "--wait", "300ms"]);
    // An address that has another tenant by now.
    let mut stranger = worker(2, ThreadState::Running, vec![running(1, Maps::default().sum("x", 9))]);
    "other".clone_into(&mut stranger.application_id);
    let fleet = fleet.with(stranger, None);
    fleet.owns(1, &format!("app:two:0@{}", fleet.at(2)));
    let error = count(&fleet).1.expect("a task is missing");
    assert!(error.contains("is no worker of 'app'"), "{error}");
    // A worker that names itself for a task that it does not run.
    fleet.owns(1, &format!("app:one:0@{}", fleet.at(0)));
    let error = count(&fleet).1.expect("a task is missing");
    assert!(error.contains("moves from worker to worker"), "{error}");
    // A member that says nothing.
    fleet.owns(1, "app:two:0");
    let error = count(&fleet).1.expect("a task is missing");
    assert!(error.contains("app:two:0") && error.contains("http.advertised"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let fleet = Fleet::pair(None);
    let url = fleet.url(0);
    let (_, ended) = stores(&["count", "none", "--url", &url]);
    assert!(
        matches!(&ended, Err(CommandError::Misused(why)) if why.contains("no store 'none', but sums, blobs")),
        "{ended:?}"
    );
    let (_, ended) = stores(&["get", "blobs", "seven", "--url", &url]);
    assert!(matches!(&ended, Err(CommandError::Misused(why)) if why.contains("seven")), "{ended:?}");
    let (_, ended) = stores(&["range", "sums", "--from", "b", "--to", "a", "--url", &url]);
    assert!(matches!(&ended, Err(CommandError::Misused(why)) if why.contains("nothing lies between")), "{ended:?}");
    let neither = Line::try_parse_from(["stores", "count", "sums"]).expect_err("nobody knows where to look");
    assert!(neither.to_string().contains("--state-dir"), "{neither}");
    assert!(Line::try_parse_from(["stores", "count", "sums", "--state-dir", "/s", "--follow"]).is_err());
}
