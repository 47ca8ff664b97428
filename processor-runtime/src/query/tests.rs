//! The routes, asked as a client asks them, over a state in memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use processor_core::ids::{Partition, TopicPartition};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::fixture::{Maps, restoring, running, whole, worker};
use super::server::Patience;
use super::*;
use crate::clock::Clock;
use crate::status::{Snapshot, ThreadState};

const TOKEN: &str = "a-token-of-24-characters";

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no sentence: {}", self.body)).to_owned()
    }
}

fn ask_with(router: Router, path: &str, headers: &[(header::HeaderName, &str)]) -> Answer {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let response = router.oneshot(request).await.expect("it always answers");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 64 << 20).await.expect("a body");
        let body = String::from_utf8(body.to_vec()).expect("text");
        Answer { status: parts.status, headers: parts.headers, body }
    })
}

fn ask(shown: Shown, path: &str) -> Answer {
    ask_with(router(Arc::new(shown), None), path, &[(header::HOST, "127.0.0.1:8080")])
}

fn keys(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let rows = json["rows"].as_array().unwrap_or_else(|| panic!("no rows: {}", answer.body));
    rows.iter().map(|row| row["key"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn a_worker_that_waits_is_healthy_and_not_ready() {
    for state in [ThreadState::Starting, ThreadState::Rebalancing, ThreadState::Restoring] {
        let shown = || worker(2, state, vec![restoring(0)]);
        assert_eq!(ask(shown(), "/healthz").status, StatusCode::OK, "{state:?}");
        let ready = ask(shown(), "/readyz");
        assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{state:?}");
        assert_eq!(ready.headers[header::RETRY_AFTER], "1");
        assert!(!ready.error().is_empty());
    }
    assert_eq!(ask(whole(), "/readyz").status, StatusCode::OK);
}

#[test]
fn a_thread_that_ended_or_hangs_is_not_healthy() {
    assert_eq!(ask(worker(2, ThreadState::Stopped, Vec::new()), "/healthz").status, StatusCode::SERVICE_UNAVAILABLE);
    let mut shown = whole();
    let status = Arc::new(WorkerStatus::new(1, SystemClock::default(), Duration::ZERO));
    status.threads()[0].turned(Duration::ZERO);
    status.threads()[0].publish(Snapshot { state: ThreadState::Running, tasks: Vec::new() });
    shown.status = status;
    let health = ask(shown, "/healthz");
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(health.error().contains("has not turned"), "{}", health.body);
}

#[test]
fn tasks_show_position_lag_and_restore() {
    let shown = worker(4, ThreadState::Restoring, vec![running(0, Maps::default()), restoring(1)]);
    let json = ask(shown, "/tasks").json();
    assert_eq!(json["state"], "restoring");
    assert_eq!(json["tasks_of_all_workers"], 4);
    assert_eq!(json["tasks"][0]["inputs"][0]["lag"], 2);
    assert_eq!(json["tasks"][0]["restore"], Value::Null);
    assert_eq!(json["tasks"][1]["restore"], json!({ "replayed": 5, "remaining": 95, "waits_for": "its changelog" }));
}

#[test]
fn metrics_show_what_the_threads_have_published() {
    let shown = worker(4, ThreadState::Restoring, vec![running(0, Maps::default()), restoring(1)]);
    // Kept since 1970, and in three days deleted.
    let kept = u64::try_from(SystemClock::default().wall().get()).expect("after 1970") + 3 * 86_400_000;
    shown.status.know_retention([(Arc::from("in"), Duration::from_millis(kept))].into());
    let answer = ask(shown, "/metrics");
    let left = answer
        .body
        .lines()
        .find_map(|line| line.strip_prefix("processor_input_time_to_loss_seconds{topic=\"in\",partition=\"0\"} "));
    let left: f64 = left.and_then(|left| left.parse().ok()).unwrap_or_else(|| panic!("{}", answer.body));
    assert!((258_000.0..=259_200.0).contains(&left), "{left}");
    assert!(answer.headers[header::CONTENT_TYPE].to_str().expect("ascii").starts_with("text/plain; version=0.0.4"));
    for series in [
        "processor_input_lag_records{topic=\"in\",partition=\"0\"} 2",
        "processor_lso_lag_records{topic=\"in\",partition=\"0\"} 3",
        "processor_lso_standing_seconds{topic=\"in\",partition=\"0\"} 90",
        "processor_operators_busy_seconds{thread=\"0\"} 0",
        "processor_restore_eta_seconds{task=\"lines_1\"} 19",
        "processor_restore_remaining_records{task=\"lines_1\"} 95",
        "processor_state{state=\"restoring\"} 1",
        "processor_state{state=\"running\"} 0",
        "processor_tasks{state=\"running\"} 1",
    ] {
        assert!(answer.body.contains(series), "no {series} in\n{}", answer.body);
    }
}

#[test]
fn a_key_is_found_in_whichever_task_has_it() {
    let found = ask(whole(), "/stores/sums/d");
    assert_eq!(found.json(), json!({ "store": "sums", "task": "lines_1", "key": "d", "value": 2 }));
    let absent = ask(whole(), "/stores/sums/e");
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    assert!(absent.error().contains("no key 'e'"), "{}", absent.body);
}

#[test]
fn keys_may_hold_what_paths_may_not() {
    let shown = || worker(1, ThreadState::Running, vec![running(0, Maps::default().sum("a/b ?ä", 7))]);
    for path in ["/stores/sums/a%2Fb%20%3F%C3%A4", "/stores/sums/a/b%20%3f%c3%a4"] {
        assert_eq!(ask(shown(), path).json()["value"], 7, "{path}");
    }
}

/// The group's members by what they own.
fn owned(owners: &[(i32, &str)]) -> Box<dyn Fn() -> Result<Arc<Owners>, String> + Send + Sync> {
    let of = |(partition, id): &(i32, &str)| (TopicPartition::new("in", Partition::new(*partition)), (*id).to_owned());
    let owners = Arc::new(owners.iter().map(of).collect::<Owners>());
    Box::new(move || Ok(owners.clone()))
}

#[test]
fn a_key_that_may_be_elsewhere_is_not_called_absent() {
    let here = || {
        let mut shown = worker(4, ThreadState::Running, vec![running(1, Maps::default().sum("a", 1))]);
        shown.owners = owned(&[(2, "app:two:0"), (3, "app:three:0@three.example:80")]);
        shown
    };
    let answer = ask(here(), "/stores/sums/b");
    assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST);
    let told =
        "(lines_1), and other workers run lines_0, lines_2 (app:two:0), lines_3 (http://three.example:80): ask them";
    assert!(answer.error().contains(told), "{}", answer.body);
    let others = json!([
        { "task": "lines_0", "client_id": null, "address": null },
        { "task": "lines_2", "client_id": "app:two:0", "address": null },
        { "task": "lines_3", "client_id": "app:three:0", "address": "three.example:80" },
    ]);
    assert_eq!(answer.json()["elsewhere"], others);
    assert_eq!(ask(here(), "/stores/sums").json()["elsewhere"], others);
    let listed = ask(here(), "/stores").json();
    assert_eq!((&listed["application"], &listed["stores"][0]["elsewhere"]), (&json!("app"), &others));
    let moving = || worker(3, ThreadState::Rebalancing, Vec::new());
    let answer = ask(moving(), "/stores/sums/a");
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    assert_eq!(ask(moving(), "/stores").json()["stores"][0]["elsewhere"], Value::Null, "nobody can say");
    let restores = worker(1, ThreadState::Restoring, vec![restoring(0)]);
    assert_eq!(ask(restores, "/stores/sums/a").status, StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn while_nobody_owns_the_other_tasks_a_key_is_asked_for_again() {
    for owners in [owned(&[]), Box::new(|| Err("the coordinator does not answer".to_owned()))] {
        let mut shown = worker(2, ThreadState::Running, vec![running(0, Maps::default().sum("a", 1))]);
        shown.owners = owners;
        let answer = ask(shown, "/stores/sums/b");
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
        assert!(answer.error().contains("nobody can say who runs lines_1"), "{}", answer.body);
    }
}

/// What a member is called is its own affair: it is bounded, and an address that is none is left out.
#[test]
fn members_with_hostile_names_are_bounded_and_have_no_address() {
    let endless = "x".repeat(100_000);
    for (name, shows) in [
        (endless.as_str(), &endless[..512]),
        ("app:two:0@evil.example:80/stores?x=", "app:two:0"),
        ("app:two:0@\r\nEvil: 1", "app:two:0"),
        ("", ""),
    ] {
        let mut shown = worker(2, ThreadState::Running, vec![running(0, Maps::default())]);
        shown.owners = owned(&[(1, name)]);
        let elsewhere = ask(shown, "/stores/sums/b").json()["elsewhere"].clone();
        assert_eq!(elsewhere, json!([{ "task": "lines_1", "client_id": shows, "address": null }]), "{name}");
    }
}

#[test]
fn a_partition_can_be_asked_for_alone() {
    let here = || {
        let tasks = vec![running(0, Maps::default().sum("a", 1)), restoring(1)];
        let mut shown = worker(3, ThreadState::Restoring, tasks);
        shown.owners = owned(&[(2, "app:two:0@two.example:80")]);
        shown
    };
    let status = |path: &str| ask(here(), path).status;
    assert_eq!(keys(&ask(here(), "/stores/sums?partition=0")), ["a"], "though another task restores");
    assert_eq!(ask(here(), "/stores/sums/a?partition=0").json()["value"], 1);
    assert_eq!(status("/stores/sums/b?partition=0"), StatusCode::NOT_FOUND);
    assert_eq!(status("/stores/sums?partition=1"), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status("/stores/sums/a?partition=1"), StatusCode::SERVICE_UNAVAILABLE);
    let other = ask(here(), "/stores/sums?partition=2").json();
    assert_eq!((&other["rows"], &other["tasks"]), (&json!([]), &json!([])));
    assert_eq!(other["elsewhere"][0]["address"], "two.example:80");
    assert_eq!(status("/stores/sums/a?partition=2"), StatusCode::MISDIRECTED_REQUEST);
    for path in ["/stores/sums?partition=3", "/stores/sums?partition=-1", "/stores/sums/a?partition=3"] {
        let answer = ask(here(), path);
        assert_eq!(
            (answer.status, answer.error().contains("has no partition")),
            (StatusCode::NOT_FOUND, true),
            "{path}"
        );
    }
    assert_eq!(status("/stores/sums/a?limit=1"), StatusCode::BAD_REQUEST);
}

#[test]
fn entries_are_counted_task_by_task_and_behind_a_cursor() {
    for (asked, counts) in
        [("", "22"), ("&from=b", "12"), ("&to=b", "10"), ("&partition=1", "2"), ("&cursor=0.61", "12")]
    {
        let json = ask(whole(), &format!("/stores/sums?count=true{asked}")).json();
        let of_tasks = json["counts"].as_array().expect("counts").iter().map(|count| count["entries"].to_string());
        assert_eq!(of_tasks.collect::<String>(), counts, "{asked}");
        assert_eq!((&json["next"], &json["rows"]), (&Value::Null, &Value::Null));
    }
}

#[test]
fn ranges_go_by_partition_and_by_key_both_ways() {
    for (asked, expected) in [
        ("", "acbd"),
        ("?reverse=true", "dbca"),
        ("?from=b", "cbd"),
        ("?to=c", "ab"),
        ("?from=b&to=d", "cb"),
        ("?from=b&to=d&reverse=true", "bc"),
        ("?from=x", ""),
    ] {
        let answer = ask(whole(), &format!("/stores/sums{asked}"));
        assert_eq!(keys(&answer).concat(), expected, "{asked}");
        assert_eq!(answer.json()["next"], Value::Null, "{asked}");
    }
}

#[test]
fn pages_of_any_size_make_up_the_whole() {
    for reverse in ["false", "true"] {
        for limit in 1..=5 {
            let (mut all, mut cursor) = (String::new(), String::new());
            for _ in 0..9 {
                let answer = ask(whole(), &format!("/stores/sums?limit={limit}&reverse={reverse}{cursor}"));
                assert!(keys(&answer).len() <= limit);
                all += &keys(&answer).concat();
                match answer.json()["next"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(all, if reverse == "true" { "dbca" } else { "acbd" }, "pages of {limit}");
        }
    }
}

#[test]
fn a_page_is_bounded_in_bytes_and_a_giant_value_is_named_and_not_shown() {
    let mut maps = Maps::default();
    let blob = |bytes: usize| {
        let length = u32::try_from(bytes).expect("small").to_le_bytes();
        [&[1, 252][..], &length, &vec![7; bytes]].concat()
    };
    for key in 0..4_u32 {
        maps.0[1].insert(key.to_be_bytes().to_vec(), blob(if key == 3 { 2 << 20 } else { 600 << 10 }));
    }
    let answer = ask(worker(1, ThreadState::Running, vec![running(0, maps.clone())]), "/stores/blobs");
    let json = answer.json();
    assert_eq!(json["rows"].as_array().expect("rows").len(), 2, "600 KiB and 600 KiB are enough");
    assert_eq!(json["next"], "0.00000001");
    let giant = ask(worker(1, ThreadState::Running, vec![running(0, maps)]), "/stores/blobs/3").json();
    assert!(giant["value"]["unreadable"].as_str().expect("a sentence").contains("at most 1048576"), "{giant}");
    assert_eq!(giant["value"]["length"], (2 << 20) + 6);
    assert!(giant["value"]["bytes"].as_str().is_some_and(|bytes| bytes.starts_with(r"\x01\xfc")), "and its beginning");
}

#[test]
fn a_value_that_cannot_be_read_does_not_spoil_the_page() {
    let mut maps = Maps::default().sum("a", 1);
    maps.0[0].insert(b"b".to_vec(), vec![9]);
    let json = ask(worker(1, ThreadState::Running, vec![running(0, maps)]), "/stores/sums").json();
    assert_eq!(json["rows"][0]["value"], 1);
    assert!(json["rows"][1]["value"]["unreadable"].as_str().expect("a sentence").contains("format version"), "{json}");
    assert_eq!((&json["rows"][1]["value"]["length"], &json["rows"][1]["value"]["bytes"]), (&json!(1), &json!(r"\t")));
}

#[test]
fn hostile_requests_get_a_sentence() {
    let long = "x".repeat(5_000);
    for (path, status, says) in [
        ("/stores/none", StatusCode::NOT_FOUND, "the application has sums, blobs"),
        ("/stores/none/k", StatusCode::NOT_FOUND, "there is no store 'none'"),
        ("/stores/blobs/abc", StatusCode::BAD_REQUEST, "'abc' is no key of this store"),
        ("/stores/blobs?from=-1", StatusCode::BAD_REQUEST, "is no key of this store"),
        ("/stores/sums?limit=0", StatusCode::BAD_REQUEST, "between 1 and 1000"),
        ("/stores/sums?limit=99999999", StatusCode::BAD_REQUEST, "between 1 and 1000"),
        ("/stores/sums?limit=99999999999999999999999", StatusCode::BAD_REQUEST, "a range takes"),
        ("/stores/sums?form=a", StatusCode::BAD_REQUEST, "a range takes"),
        ("/stores/sums?from=b&to=a", StatusCode::BAD_REQUEST, "nothing lies between"),
        ("/stores/sums?cursor=x", StatusCode::BAD_REQUEST, "the cursor is none"),
        ("/stores/sums?cursor=0.ä0", StatusCode::BAD_REQUEST, "the cursor is none"),
        ("/stores/sums?cursor=0.0", StatusCode::BAD_REQUEST, "the cursor is none"),
        ("/stores/sums?from=b&to=d&cursor=0.61", StatusCode::BAD_REQUEST, "outside of from and to"),
        ("/stores/sums?from=b&to=d&cursor=0.64", StatusCode::BAD_REQUEST, "outside of from and to"),
        ("/stores/sums?from=b&to=d&cursor=0.7a&reverse=true", StatusCode::BAD_REQUEST, "outside of from and to"),
        ("/stores/sums/%ff", StatusCode::BAD_REQUEST, "UTF-8"),
        ("/topology?format=png", StatusCode::BAD_REQUEST, "no form 'png'"),
        ("/../../etc/passwd", StatusCode::NOT_FOUND, "there is nothing at"),
        (&format!("/stores/sums/{long}"), StatusCode::URI_TOO_LONG, "5000 bytes"),
        (&format!("/stores/{long}"), StatusCode::NOT_FOUND, "…"),
    ] {
        let path = path.replace('ä', "%C3%A4");
        let answer = ask(whole(), &path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.error().contains(says), "{path}: {}", answer.body);
        assert!(answer.body.len() < 1_000, "{path}: {}", answer.body);
    }
}

#[test]
fn with_a_token_state_is_closed_and_health_is_open() {
    let guarded = |headers: &[(header::HeaderName, &str)], path: &str| {
        let token = Token::new(TOKEN).expect("long enough");
        ask_with(router(Arc::new(whole()), Some(token)), path, headers)
    };
    let bearer = format!("Bearer {TOKEN}");
    for path in ["/tasks", "/topology", "/stores", "/stores/sums", "/stores/sums/a"] {
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer a-token-of-24-characterz", TOKEN, "Basic a-token-of-24-characters"]
        {
            let refused = guarded(&[(header::AUTHORIZATION, wrong)], path);
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path} with '{wrong}'");
            assert_eq!(refused.headers[header::WWW_AUTHENTICATE], "Bearer");
        }
        assert_eq!(guarded(&[], path).status, StatusCode::UNAUTHORIZED, "{path}");
        let any_name = (header::HOST, "worker-1.example:8080");
        assert_eq!(guarded(&[(header::AUTHORIZATION, &bearer), any_name], path).status, StatusCode::OK, "{path}");
    }
    for path in ["/", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(guarded(&[], path).status, StatusCode::OK, "{path}");
    }
}

#[test]
fn without_a_token_other_names_than_this_machines_are_refused() {
    let refused = ask_with(router(Arc::new(whole()), None), "/stores/sums", &[(header::HOST, "rebound.example")]);
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.error().contains("localhost only"), "{}", refused.body);
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let page = ask(whole(), "/");
    assert!(page.headers[header::CONTENT_SECURITY_POLICY].to_str().expect("ascii").starts_with("default-src 'none'"));
    for outside in ["http://", "https://", "src=", "@import", "innerHTML"] {
        assert!(!page.body.contains(outside), "the page has {outside}");
    }
}

#[test]
fn a_client_that_is_slow_loses_its_connection() {
    let brief = Duration::from_millis(100);
    let patience = Patience { request: brief, connection: brief * 3, last_answer: brief };
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let server = Server::start_with(loopback, None, whole(), patience).expect("a free port");
    let request = "GET /tasks HTTP/1.1\r\nHost: localhost\r\n";
    let (whole_request, and_a_half) = (format!("{request}\r\n"), format!("{request}\r\n{request}"));
    for (begins, answers) in [("", 0), (request, 0), (&whole_request, 1), (&and_a_half, 1)] {
        let mut stream = TcpStream::connect(server.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it can be set");
        stream.write_all(begins.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("'{begins}' keeps its connection: {error}"));
        assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 200").count(), answers, "{begins}");
    }
}

#[test]
fn the_topology_has_three_forms() {
    for (asked, begins) in [("", "Topologies:"), ("?format=text", "Topologies:"), ("?format=dot", "digraph")] {
        let answer = ask(whole(), &format!("/topology{asked}"));
        assert!(answer.body.starts_with(begins), "{asked}: {}", answer.body);
    }
    assert!(ask(whole(), "/topology?format=mermaid").body.contains("flowchart"));
}

#[test]
fn a_taken_address_is_refused_with_what_to_do() {
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let first = Server::start(loopback, None, whole()).expect("a free port");
    let refused = Server::start(first.address(), None, whole()).expect_err("it is taken");
    assert!(refused.contains("choose another port, or 0"), "{refused}");
}

#[test]
fn the_server_answers_over_tcp_refuses_long_requests_and_ends_when_dropped() {
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let server = Server::start(loopback, None, whole()).expect("a free port");
    let address = server.address();
    let ask = |request: String| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        // A refusal may close the connection before all was read.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let slow = TcpStream::connect(address).expect("a client that says nothing keeps nobody waiting");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(ask(get("/stores/sums/a")).starts_with("HTTP/1.1 200"));
    let refused = ask(get(&format!("/{}", "x".repeat(20 << 10))));
    assert!(refused.starts_with("HTTP/1.1 4"), "{refused}");
    drop(server);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    drop(slow);
}

/// Paths and queries that begin like right ones: of pieces that mean something, and of any characters.
fn hostile_path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "/stores",
            "/stores/sums",
            "/tasks",
            "/topology",
            "?",
            "&",
            "=",
            "from=",
            "to=",
            "limit=",
            "cursor=",
            "format=",
            "%",
            "%00",
            "%ff",
            "%2f",
            "..",
            "//",
            "-1",
            "18446744073709551616",
            "null",
            "\"a\"",
            "[",
            "{}",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,12}".prop_map(|text| text.replace([' ', '"', '<', '>', '\\', '^', '`', '{', '|', '}', '#'], "x")),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_is_asked_is_answered_with_an_answer_or_a_sentence(path in hostile_path()) {
        prop_assume!(path.parse::<Uri>().is_ok());
        let answer = ask(whole(), &path);
        prop_assert!(answer.status.as_u16() < 500 || answer.status == StatusCode::SERVICE_UNAVAILABLE, "{path}: {}", answer.body);
        if answer.status.is_client_error() {
            prop_assert!(!answer.error().is_empty(), "{path}");
        }
        prop_assert!(answer.body.len() < 1 << 20, "{path}: {} bytes", answer.body.len());
    }
}
