//! What a worker shows over HTTP, on a real Kafka: health through its life, metrics that move, state that agrees with the
//! oracle, and the page in a real browser.

use std::collections::BTreeMap;
use std::process::Command;

use processor_integration_tests::http::{get, series};
use processor_integration_tests::oracle::{LedgerState, expected_ledger_state};
use processor_integration_tests::scene::{PATIENCE, Scene};
use processor_integration_tests::worker::{Worker, WorkerConfig, await_condition};
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

#[test]
fn the_page_shows_tasks_and_a_store_in_a_real_browser() {
    let mut scene = Scene::new("http-page");
    scene.produce(3_000);
    let (worker, address) = start(&scene.worker("one"));
    await_ready(&worker, &address);
    scene.await_outputs(scene.produced, &[&worker]);
    let (key, (balance, count)) = expected(&scene).into_iter().next().expect("there are accounts");
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", scene.dir.join("browser").display()))
        .arg(format!("http://{address}/#store=accounts&key={key}"))
        .output();
    let seen = browser.expect("chromium is needed: ./x test kafka installs it");
    let page = String::from_utf8_lossy(&seen.stdout);
    let shown = page.split_once("<body>").and_then(|(_, body)| body.split_once("<script>")).map(|(shown, _)| shown);
    let shown = shown.unwrap_or_else(|| panic!("no page: {page}\n{}", String::from_utf8_lossy(&seen.stderr)));
    let entry = format!("<td>{key}</td><td class=\"code\">[{balance},{count}]</td>");
    for expected in ["entries_0", "entries_3", "<td>running</td>", &scene.input(), "Source: entries", &entry] {
        assert!(shown.contains(expected), "no '{expected}' in\n{shown}");
    }
    worker.stop().expect("a clean stop");
}
