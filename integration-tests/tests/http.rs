//! What a worker shows over HTTP, on a real Kafka: health through its life, metrics that move, state that agrees with the
//! oracle, and the page in a real browser.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use processor_integration_tests::http::{get, series};
use processor_integration_tests::oracle::{LedgerState, expected_ledger_state};
use processor_integration_tests::scene::{PATIENCE, Scene};
use processor_integration_tests::worker::{Worker, WorkerConfig, await_condition, without_settings};
use serde_json::{Value, json};

/// What its log says before the address.
const ANNOUNCED: &str = "http://";

fn start(config: &WorkerConfig) -> (Worker, String) {
    let worker = config.clone().with("http-listen", "127.0.0.1:0").start();
    let address = address(&worker);
    (worker, address)
}

/// Where it listens, as its log says.
fn address(worker: &Worker) -> String {
    worker.await_since_start(ANNOUNCED, PATIENCE).expect("it says where it listens");
    let log = worker.log_since_start();
    let (_, announced) = log.split_once(ANNOUNCED).expect("it was there a moment ago");
    announced.split_whitespace().next().expect("an address").to_owned()
}

fn await_ready(worker: &Worker, address: &str) {
    let ready = await_condition("the worker to be ready", PATIENCE, || Ok(get(address, "/readyz", &[])?.status == 200));
    ready.unwrap_or_else(|error| panic!("{error:#}; its log ends:\n{}", worker.log_tail(30)));
}

fn expected(scene: &Scene) -> LedgerState {
    expected_ledger_state(&scene.read(&scene.input()))
}

/// All entries of the store, page by page.
fn all_entries(address: &str, limit: usize) -> LedgerState {
    let (mut entries, mut cursor) = (LedgerState::new(), String::new());
    loop {
        let path = format!("/stores/accounts?limit={limit}{cursor}");
        let page = get(address, &path, &[]).expect("it answers").json().expect("a page");
        assert_eq!(page["elsewhere"], json!([]), "{page}");
        for row in page["rows"].as_array().expect("rows") {
            let before = entries.insert(row["key"].as_str().expect("a text").to_owned(), account(&row["value"]));
            assert_eq!(before, None, "a key comes once: {row}");
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return entries,
        }
    }
}

fn account(value: &Value) -> (i64, u64) {
    (value[0].as_i64().expect("a balance"), value[1].as_u64().expect("a count"))
}

#[test]
fn health_follows_the_life_of_a_worker() {
    let mut scene = Scene::new("http-health");
    scene.produce(20_000);
    let (worker, address) = start(&scene.worker("one"));
    assert_eq!(get(&address, "/healthz", &[]).expect("it answers while it starts").status, 200);
    await_ready(&worker, &address);
    scene.await_outputs(scene.produced, &[&worker]);
    worker.stop().expect("a clean stop");
    assert!(get(&address, "/healthz", &[]).is_err(), "nobody listens behind the end");

    // The state goes, so that there is something to restore.
    std::fs::remove_dir_all(scene.state_dir("one")).expect("the state is there");
    let (worker, address) = start(&scene.worker("one"));
    let mut seen = BTreeMap::new();
    let restored = await_condition("the worker to be ready again", PATIENCE, || {
        let health = get(&address, "/healthz", &[])?;
        anyhow::ensure!(health.status == 200, "a worker that restores is healthy: {}", health.body);
        let ready = get(&address, "/readyz", &[])?;
        *seen.entry(ready.status).or_insert(0) += 1;
        Ok(ready.status == 200)
    });
    restored.unwrap_or_else(|error| panic!("{error:#}; its log ends:\n{}", worker.log_tail(30)));
    assert!(seen.contains_key(&503), "it was not ready before it had its state: {seen:?}");
    let restored = series(&address, "processor_restore_records_total{thread=\"0\"}").expect("it answers");
    assert!(restored.is_some_and(|records| records > 0.0), "{restored:?}");
    worker.stop().expect("a clean stop");
    scene.verify(&["one"]);
}

#[test]
fn metrics_move_with_the_records_and_series_of_lost_partitions_go() {
    let mut scene = Scene::new("http-metrics");
    scene.produce(5_000);
    let (one, address) = start(&scene.worker("one"));
    await_ready(&one, &address);
    scene.await_outputs(scene.produced, &[&one]);
    let value = |name: &str| series(&address, name).expect("it answers").unwrap_or_else(|| panic!("no {name}"));
    let of_thread = |name: &str| value(&format!("{name}{{thread=\"0\"}}"));
    let counted = await_condition("all records to be counted", PATIENCE, || {
        Ok(series(&address, "processor_records_processed_total{thread=\"0\"}")? == Some(5_000.0))
    });
    counted.expect("committed records are counted");
    assert!(value("processor_commits_total{thread=\"0\",result=\"ok\"}") >= 1.0);
    assert_eq!(of_thread("processor_batch_records_sum") as u64, 5_000);
    assert!(value("processor_e2e_latency_seconds_count{thread=\"0\",record=\"last\"}") >= 1.0);
    for phase in ["poll", "recover", "process", "changelog", "offsets", "commit", "apply"] {
        let spent = value(&format!("processor_loop_duration_seconds_sum{{thread=\"0\",phase=\"{phase}\"}}"));
        assert!(spent > 0.0, "no time in {phase}");
    }
    assert!(value("processor_rocksdb_memory_budget_bytes") > 0.0);
    assert_eq!(value("processor_tasks{state=\"running\"}") as i32, scene.partitions);
    let keys: f64 = (0..scene.partitions)
        .map(|partition| value(&format!("processor_store_keys{{task=\"entries_{partition}\",store=\"accounts\"}}")))
        .sum();
    assert!(keys > 0.0);
    let lag = |partition: i32| {
        let topic = scene.input();
        series(&address, &format!("processor_input_lag_records{{topic=\"{topic}\",partition=\"{partition}\"}}"))
    };
    let done = await_condition("the lag to be gone", PATIENCE, || {
        let lags: Result<Vec<_>, _> = (0..scene.partitions).map(lag).collect();
        Ok(lags?.iter().all(|lag| *lag == Some(0.0)))
    });
    done.expect("everything is processed");

    let (two, _) = start(&scene.worker("two"));
    two.await_running(2, PATIENCE).expect("the second worker gets its half");
    one.await_running(2, PATIENCE).expect("the first worker keeps the other");
    let gone = await_condition("the series of lost partitions to go", PATIENCE, || {
        let lags: Result<Vec<_>, _> = (0..scene.partitions).map(lag).collect();
        Ok(lags?.iter().flatten().count() == 2)
    });
    gone.expect("only owned partitions have a lag");
    assert!(of_thread("processor_rebalances_total") >= 2.0);
    two.stop().expect("a clean stop");
    one.stop().expect("a clean stop");
    scene.verify(&["one", "two"]);
}

#[test]
fn queries_agree_with_the_oracle_and_say_what_is_elsewhere() {
    let mut scene = Scene::new("http-queries");
    scene.produce(10_000);
    let (one, address) = start(&scene.worker("one"));
    await_ready(&one, &address);
    scene.await_outputs(scene.produced, &[&one]);
    let expected = expected(&scene);
    let agrees =
        await_condition("the last batch to be applied", PATIENCE, || Ok(all_entries(&address, 1_000) == expected));
    agrees.expect("the store is what the input says");
    assert_eq!(all_entries(&address, 7), expected, "in pages of any size");
    for (key, value) in expected.iter().take(20) {
        let found =
            get(&address, &format!("/stores/accounts/{key}"), &[]).expect("it answers").json().expect("an entry");
        assert_eq!(account(&found["value"]), *value, "{found}");
    }
    let absent = get(&address, "/stores/accounts/nobody", &[]).expect("it answers");
    assert_eq!(absent.status, 404, "{}", absent.body);

    let (two, other) = start(&scene.worker("two"));
    two.await_running(2, PATIENCE).expect("the second worker gets its half");
    one.await_running(2, PATIENCE).expect("the first worker keeps the other");
    await_ready(&one, &address);
    await_ready(&two, &other);
    let mut owners = BTreeMap::new();
    for (key, value) in expected.iter().take(40) {
        let answers =
            [&address, &other].map(|worker| get(worker, &format!("/stores/accounts/{key}"), &[]).expect("it answers"));
        let statuses = answers.each_ref().map(|answer| answer.status);
        let owner = answers.iter().find(|answer| answer.status == 200).unwrap_or_else(|| panic!("{key}: {statuses:?}"));
        assert_eq!(account(&owner.json().expect("an entry")["value"]), *value);
        let other = answers.iter().find(|answer| answer.status != 200).expect("one has it");
        assert_eq!(other.status, 421, "the other one says that the key may be elsewhere: {}", other.body);
        assert!(other.body.contains(&format!("({}:", scene.name)), "and names who has it: {}", other.body);
        *owners.entry(statuses).or_insert(0) += 1;
    }
    assert_eq!(owners.len(), 2, "each has some: {owners:?}");
    two.stop().expect("a clean stop");
    one.stop().expect("a clean stop");
}

/// A worker on this machine that tells the others where it is.
fn start_advertised(config: &WorkerConfig) -> (Worker, String) {
    let config = config.clone().with("http-advertised", "127.0.0.1:0");
    start(&config)
}

/// What `stores` answers: standard output, standard error, and the exit code.
fn stores(scene: &Scene, arguments: &[&str]) -> (String, String, Option<i32>) {
    let mut command = Command::new(scene.worker("one").program);
    without_settings(&mut command);
    let output = command.arg("stores").args(arguments).output().expect("the program is built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// Questions that have the same answer on disk and over HTTP, in both forms.
fn answers(scene: &Scene, key: &str, place: &[&str]) -> Vec<String> {
    let verbs: [&[&str]; 5] = [
        &["count", "accounts"],
        &["get", "accounts", key],
        &["range", "accounts", "--limit", "100000"],
        &["range", "accounts", "--limit", "7", "--from", key],
        &["range", "accounts", "--limit", "400", "--reverse"],
    ];
    let forms = verbs.iter().flat_map(|verb| [[verb, place].concat(), [verb, place, &["--json"]].concat()]);
    let answer = |arguments: Vec<&str>| {
        let (out, error, code) = stores(scene, &arguments);
        let of_disk = error.starts_with("as this disk was last written, at ") && !arguments.contains(&"--json");
        assert!(code == Some(0) && (error.is_empty() || of_disk), "{arguments:?}: {out}\n{error}");
        out
    };
    forms.map(answer).collect()
}

/// The whole way of a question that the wrong worker was asked, also while the right one is dead.
#[test]
fn a_worker_says_where_the_keys_of_the_others_are_and_the_command_line_asks_there() {
    let mut scene = Scene::new("http-owners");
    scene.produce(10_000);
    let (one, address) = start_advertised(&scene.worker("one"));
    await_ready(&one, &address);
    scene.await_outputs(scene.produced, &[&one]);
    let expected = expected(&scene);
    let agrees =
        await_condition("the last batch to be applied", PATIENCE, || Ok(all_entries(&address, 1_000) == expected));
    agrees.expect("the store is what the input says");
    let key = expected.keys().next().expect("there are accounts");
    let url = format!("http://{address}");
    let alone = answers(&scene, key, &["--url", &url]);

    let (mut two, other) = start_advertised(&scene.worker("two"));
    two.await_running(2, PATIENCE).expect("the second worker gets its half");
    one.await_running(2, PATIENCE).expect("the first worker keeps the other");
    await_ready(&one, &address);
    await_ready(&two, &other);
    let mut of_two = None;
    for (asked, told) in [(&address, &other), (&other, &address)] {
        let mut elsewhere = 0;
        for (key, value) in expected.iter().take(40) {
            let path = format!("/stores/accounts/{key}");
            let answer = get(asked, &path, &[]).expect("it answers");
            if answer.status == 200 {
                continue;
            }
            assert_eq!(answer.status, 421, "{}", answer.body);
            let answer = answer.json().expect("a refusal");
            let tasks = answer["elsewhere"].as_array().expect("tasks");
            assert_eq!(tasks.len(), 2, "{answer}");
            assert!(tasks.iter().all(|task| task["address"] == **told), "{answer}");
            let found = get(told, &path, &[]).expect("it answers").json().expect("an entry");
            assert_eq!(account(&found["value"]), *value, "{found}");
            elsewhere += 1;
            of_two = of_two.or((asked == &address).then(|| key.clone()));
        }
        assert!(elsewhere > 0, "each has some that the other has not");
    }
    let of_two = of_two.expect("the second worker has some");
    let asked = format!("store=accounts&key={of_two}");
    let shown = page(&scene, &address, &asked);
    let link = format!("<a href=\"//{other}/#{}\"", asked.replace('&', "&amp;"));
    assert!(shown.contains(&link), "no link {link} in\n{shown}");
    let other_url = format!("http://{other}");
    assert_eq!(answers(&scene, key, &["--url", &url]), alone, "the second worker was asked for its half");
    assert_eq!(answers(&scene, key, &["--url", &other_url]), alone, "and so was the first");

    // The group does not know for some seconds that it is dead.
    two.kill().expect("it can be killed");
    let began = Instant::now();
    let (out, error, code) = stores(&scene, &["count", "accounts", "--url", &url, "--wait", "500ms"]);
    assert_eq!(code, Some(1), "{out}{error}");
    assert!(error.contains("this is not all") && error.contains("cannot be reached"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let (path, mut seen) = (format!("/stores/accounts/{of_two}"), BTreeMap::new());
    let moved = await_condition("the first worker to have all", PATIENCE, || {
        let asked = Instant::now();
        let answer = get(&address, &path, &[])?;
        anyhow::ensure!(asked.elapsed() < Duration::from_secs(5), "no question hangs: {:?}", asked.elapsed());
        anyhow::ensure!([200, 421, 503].contains(&answer.status), "{}", answer.body);
        *seen.entry(answer.status).or_insert(0) += 1;
        Ok(answer.status == 200)
    });
    moved.unwrap_or_else(|error| panic!("{error:#}; {seen:?}; its log ends:\n{}", one.log_tail(30)));
    assert!(seen.contains_key(&421) && seen.contains_key(&503), "first the old owner, then a rebalance: {seen:?}");
    await_ready(&one, &address);
    assert_eq!(answers(&scene, key, &["--url", &url]), alone);
    let (listed, error, code) = stores(&scene, &["list", "--url", &url, "--json"]);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(listed.matches("\"store\": \"accounts\"").count(), 4, "{listed}");

    one.stop().expect("a clean stop");
    let (_, error, code) = stores(&scene, &["count", "accounts", "--url", &url]);
    assert!(code == Some(1) && error.contains("cannot be reached"), "{error}");
    let state_dir = scene.state_dir("one");
    let on_disk = answers(&scene, key, &["--state-dir", state_dir.to_str().expect("text")]);
    assert_eq!(on_disk, alone, "the disk has what the worker had said");
}

/// Kafka keeps the client id with which a static member first joined: docs/http.md says so, and the worker notices.
#[test]
fn a_static_member_that_comes_back_at_another_address_says_that_the_group_tells_the_old_one() {
    let mut scene = Scene::new("http-static");
    scene.produce(1_000);
    let config = |worker: &str| scene.worker(worker).with("instance-id", worker).with("session-timeout", "45s");
    let (one, old) = start_advertised(&config("one"));
    one.await_running(4, PATIENCE).expect("it gets all");
    let (two, other) = start_advertised(&config("two"));
    two.await_running(2, PATIENCE).expect("the second worker gets its half");
    one.await_running(2, PATIENCE).expect("the first worker keeps the other");
    one.stop().expect("a clean stop");
    // As long as its port is taken it gets another one.
    let _taken = std::net::TcpListener::bind(&old).expect("it is free now");
    let (one, address) = start_advertised(&config("one"));
    assert_ne!(address, old);
    await_ready(&one, &address);
    await_ready(&two, &other);
    one.await_running(2, PATIENCE).expect("nothing has moved");
    let told = |worker: &str| {
        let range = get(worker, "/stores/accounts?limit=1", &[]).expect("it answers").json().expect("a page");
        range["elsewhere"].as_array().expect("tasks").iter().map(|task| task["address"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(told(&other), [json!(old), json!(old)], "what it said when it first joined");
    assert_eq!(told(&address), [json!(other), json!(other)]);
    one.await_since_start("Stop this worker once for longer than session.timeout", PATIENCE).expect("it has noticed");
    two.stop().expect("a clean stop");
    one.stop().expect("a clean stop");
}

#[test]
fn another_address_than_loopback_needs_a_token() {
    let scene = Scene::new("http-token");
    let mut refused = scene.worker("one").with("http-listen", "0.0.0.0:0").start();
    assert_eq!(refused.wait(PATIENCE).expect("it stops by itself").code(), Some(2));
    assert!(refused.log_since_start().contains("http.token.file"), "{}", refused.log_since_start());

    let token = "0123456789abcdef0123456789abcdef";
    let file = scene.dir.join("token");
    std::fs::write(&file, format!("{token}\n")).expect("the target directory can be written");
    let config = scene.worker("one").with("http-listen", "0.0.0.0:0").with("http-token-file", file.display());
    let worker = config.start();
    let address = address(&worker).replace("0.0.0.0", "127.0.0.1");
    await_ready(&worker, &address);
    assert_eq!(get(&address, "/stores", &[]).expect("it answers").status, 401);
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(get(&address, "/stores", &[&bearer]).expect("it answers").status, 200);
    assert!(!worker.log_since_start().contains(token), "the log holds no secret");
    worker.stop().expect("a clean stop");
}

/// What the page of a worker shows in a real browser.
fn page(scene: &Scene, address: &str, fragment: &str) -> String {
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", scene.dir.join("browser").display()))
        .arg(format!("http://{address}/#{fragment}"))
        .output();
    let seen = browser.expect("chromium is needed: ./x test kafka installs it");
    let page = String::from_utf8_lossy(&seen.stdout);
    let shown = page.split_once("<body>").and_then(|(_, body)| body.split_once("<script>")).map(|(shown, _)| shown);
    shown.unwrap_or_else(|| panic!("no page: {page}\n{}", String::from_utf8_lossy(&seen.stderr))).to_owned()
}

#[test]
fn the_page_shows_tasks_and_a_store_in_a_real_browser() {
    let mut scene = Scene::new("http-page");
    scene.produce(3_000);
    let (worker, address) = start(&scene.worker("one"));
    await_ready(&worker, &address);
    scene.await_outputs(scene.produced, &[&worker]);
    let (key, (balance, count)) = expected(&scene).into_iter().next().expect("there are accounts");
    let shown = page(&scene, &address, &format!("store=accounts&key={key}"));
    let entry = format!("<td>{key}</td><td class=\"code\">[{balance},{count}]</td>");
    for expected in ["entries_0", "entries_3", "<td>running</td>", &scene.input(), "Source: entries", &entry] {
        assert!(shown.contains(expected), "no '{expected}' in\n{shown}");
    }
    worker.stop().expect("a clean stop");
}
