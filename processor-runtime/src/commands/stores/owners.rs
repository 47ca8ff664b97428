//! Finds who runs a task and asks there, through rebalances, restores and restarts.
//!
//! One worker is known from the command line. It says which tasks it runs, and where the owners of the others can be asked;
//! they say so in turn when a task has moved meanwhile. Whatever passes by itself is waited for, within one patience for the
//! whole command. What a worker says about another one is not trusted further: it has to be of the same application, and the
//! token is not sent to it unless whoever asks wants that.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use processor_core::protocol::client_id::HttpAddress;
use serde_json::Value;

use super::Remote;
use super::found::Missing;
use super::http::{Answer, Bearer, Client};
use crate::commands::{CommandError, output};

/// How long to wait where nobody says for how long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that a worker can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often an owner is followed to the next one until it is waited.
const HOPS_MAX: usize = 4;
/// The most tasks of one store that are believed.
const TASKS_MAX: usize = 100_000;

/// `http://host:port` of a worker.
#[derive(Clone, Debug)]
pub(super) struct WorkerUrl(pub(super) HttpAddress);

impl FromStr for WorkerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("https:") {
            return Err("a worker speaks no TLS: give http://host:port, and reach it through a tunnel where the network is not yours".into());
        }
        let address =
            text.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest)).and_then(|rest| {
                let with_port = rest.parse().or_else(|_| format!("{rest}:80").parse());
                with_port.ok()
            });
        address
            .map(Self)
            .ok_or_else(|| "it must be http://host:port, such as http://127.0.0.1:8080, without a path".into())
    }
}

/// A task, and where it was found last.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) name: String,
    pub(super) partition: i32,
    /// About how many keys the store has in it, where its owner said so.
    pub(super) keys_about: Option<u64>,
    at: Option<HttpAddress>,
    /// Why it cannot be asked anywhere.
    unknown: Option<String>,
}

/// A store, and the tasks that have it, by partition.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub(super) store: String,
    pub(super) tasks: Vec<Task>,
}

/// What asking about a task has come to.
#[derive(Debug)]
pub(super) enum Heard {
    /// The answer of its owner.
    Answer(Value),
    /// Its owner does not have the key.
    NoSuchKey,
    /// Nobody could be asked.
    Missing(Missing),
}

/// By task: its stores, and about how many keys each has.
type Sizes = BTreeMap<String, Vec<(String, Option<u64>)>>;

/// The workers of an application.
#[derive(Debug)]
pub(super) struct Workers {
    client: Client,
    first: HttpAddress,
    bearer: Option<Bearer>,
    /// Whether others are asked: there is no token that they could learn, or they may.
    follows: bool,
    wait: Duration,
    patience_left: Duration,
    application: String,
    /// Others that are of the same application.
    known: BTreeSet<HttpAddress>,
    /// Others that are not asked again, and why.
    given_up: BTreeMap<HttpAddress, String>,
    /// What each worker has told of its stores.
    told: BTreeMap<HttpAddress, Result<Sizes, String>>,
}

impl Workers {
    pub(super) fn new(first: HttpAddress, remote: &Remote) -> Result<Self, CommandError> {
        let bearer = remote.token_file.as_deref().map(Bearer::read).transpose()?;
        Ok(Self {
            client: Client::new()?,
            first,
            follows: remote.follow || bearer.is_none(),
            bearer,
            wait: remote.wait,
            patience_left: remote.wait,
            application: String::new(),
            known: BTreeSet::new(),
            given_up: BTreeMap::new(),
            told: BTreeMap::new(),
        })
    }

    /// The stores, or the one of a name, with all tasks.
    pub(super) fn stores(&mut self, name: Option<&str>) -> Result<Vec<Listing>, CommandError> {
        let at = self.first.clone();
        loop {
            let answer = self.get(&at, "/stores").map_err(CommandError::Failed)?;
            let why = match answer.status {
                StatusCode::OK => match self.listings(&answer.body, name)? {
                    Some(listings) => return Ok(listings),
                    None => "tasks are on their way, in a rebalance or a restore".to_owned(),
                },
                StatusCode::SERVICE_UNAVAILABLE => answer.error().to_owned(),
                status => return Err(refused(&at, status, &answer)),
            };
            if !self.pause(answer.retry_after) {
                return Err(CommandError::Failed(format!(
                    "http://{at} says, still after {:?}: {why}. Ask again later, wait longer with --wait, or ask another worker",
                    self.wait
                )));
            }
        }
    }

    /// `None` where the worker cannot say just now who runs the other tasks.
    fn listings(&mut self, body: &Value, name: Option<&str>) -> Result<Option<Vec<Listing>>, CommandError> {
        let unclear =
            || CommandError::Failed(format!("http://{} does not answer as a worker of this version does", self.first));
        let application = body["application"].as_str().ok_or_else(unclear)?;
        let all = body["stores"].as_array().ok_or_else(unclear)?;
        let mut listings = Vec::new();
        for store in all {
            let store_name = store["store"].as_str().ok_or_else(unclear)?;
            if name.is_some_and(|name| name != store_name) {
                continue;
            }
            let Some(elsewhere) = store["elsewhere"].as_array() else { return Ok(None) };
            let here = store["tasks"].as_array().ok_or_else(unclear)?;
            let mut tasks = Vec::new();
            for told in here {
                let task = Task::named(&told["task"]).ok_or_else(unclear)?;
                tasks.push(Task { at: Some(self.first.clone()), keys_about: told["keys_about"].as_u64(), ..task });
            }
            for told in elsewhere {
                let task = Task::named(&told["task"]).ok_or_else(unclear)?;
                let (at, unknown) = match owner(told) {
                    Owner::At(at) => (Some(at), None),
                    Owner::Silent(why) => (None, Some(why)),
                    Owner::Nobody => (None, None),
                };
                tasks.push(Task { at, unknown, ..task });
            }
            if tasks.len() > TASKS_MAX {
                return Err(unclear());
            }
            tasks.sort_by_key(|task| task.partition);
            listings.push(Listing { store: store_name.to_owned(), tasks });
        }
        if let (Some(name), []) = (name, listings.as_slice()) {
            let names: Vec<_> = all.iter().filter_map(|store| store["store"].as_str()).collect();
            return Err(CommandError::Misused(format!(
                "the application has no store '{name}', but {}",
                names.join(", ")
            )));
        }
        application.clone_into(&mut self.application);
        Ok(Some(listings))
    }

    /// What the owner of a task tells of its stores: about how many keys each has in it. An owner that cannot be asked now is
    /// not waited for.
    pub(super) fn keys_about(&mut self, task: &Task) -> Result<Vec<(String, Option<u64>)>, Missing> {
        let missing = |why: String| Missing { task: task.name.clone(), why };
        let unknown = || task.unknown.clone().unwrap_or_else(|| "the group has no owner for it just now".to_owned());
        let at = task.at.clone().ok_or_else(|| missing(unknown()))?;
        if !self.told.contains_key(&at) {
            let answer = self.introduce(&at).and_then(|()| self.get(&at, "/stores"));
            self.told.insert(at.clone(), answer.map(|answer| sizes(&answer.body)));
        }
        match &self.told[&at] {
            Ok(sizes) => {
                sizes.get(&task.name).cloned().ok_or_else(|| missing(format!("http://{at} does not run it (any more)")))
            }
            Err(why) => Err(missing(why.clone())),
        }
    }

    /// Asks the owner of a task, whoever it is by now.
    pub(super) fn ask(&mut self, task: &mut Task, path: &str) -> Result<Heard, CommandError> {
        let missing = |why: String| Ok(Heard::Missing(Missing { task: task.name.clone(), why }));
        let mut at = task.at.clone().unwrap_or_else(|| self.first.clone());
        let mut hops = 0;
        loop {
            let began = Instant::now();
            let (why, retry_after) = match self.introduce(&at).and_then(|()| self.get(&at, path)) {
                Ok(answer) => match answer.status {
                    StatusCode::OK | StatusCode::NOT_FOUND if is_about(&answer.body, &task.name) => {
                        task.at = Some(at);
                        let found = answer.status == StatusCode::OK;
                        return Ok(if found { Heard::Answer(answer.body) } else { Heard::NoSuchKey });
                    }
                    StatusCode::OK | StatusCode::MISDIRECTED_REQUEST => {
                        let told = answer.body["elsewhere"].as_array().map(Vec::as_slice).unwrap_or_default();
                        match told.iter().find(|told| told["task"] == *task.name).map_or(Owner::Nobody, owner) {
                            Owner::At(next) if next != at && hops < HOPS_MAX => {
                                (at, hops) = (next, hops + 1);
                                continue;
                            }
                            Owner::At(next) => (format!("it moves from worker to worker, last to http://{next}"), None),
                            Owner::Silent(why) => return missing(why),
                            Owner::Nobody => ("the group has no owner for it".to_owned(), None),
                        }
                    }
                    StatusCode::SERVICE_UNAVAILABLE => (format!("http://{at}: {}", answer.error()), answer.retry_after),
                    status if at == self.first => return Err(refused(&at, status, &answer)),
                    status => return missing(refused(&at, status, &answer).to_string()),
                },
                Err(why) if at == self.first => return Err(CommandError::Failed(why)),
                Err(why) => {
                    self.patience_left = self.patience_left.saturating_sub(began.elapsed());
                    if self.patience_left.is_zero() || self.given_up.contains_key(&at) {
                        self.given_up.entry(at).or_insert_with(|| why.clone());
                        return missing(why);
                    }
                    // Its tasks may have a new owner, or get one.
                    at = self.first.clone();
                    (why, None)
                }
            };
            hops = 0;
            if !self.pause(retry_after) {
                return missing(format!("{why}; still so after {:?}", self.wait));
            }
        }
    }

    /// Makes sure, before a worker is asked that another one has named, that it may be, and is of the same application.
    fn introduce(&mut self, at: &HttpAddress) -> Result<(), String> {
        if *at == self.first || self.known.contains(at) {
            return Ok(());
        }
        if let Some(why) = self.given_up.get(at) {
            return Err(why.clone());
        }
        let give_up = |why: String, workers: &mut Self| {
            workers.given_up.insert(at.clone(), why.clone());
            Err(why)
        };
        if !self.follows {
            return give_up(format!("it runs on http://{at}: --follow sends the token there, too, and asks"), self);
        }
        let answer = self.get(at, "/stores")?;
        match (answer.status, answer.body["application"].as_str()) {
            (StatusCode::OK, Some(application)) if application == self.application => {
                self.known.insert(at.clone());
                Ok(())
            }
            (StatusCode::OK, _) => give_up(
                format!("http://{at} is no worker of '{}': is an old address in the group?", self.application),
                self,
            ),
            (status, _) => give_up(refused(at, status, &answer).to_string(), self),
        }
    }

    fn get(&self, at: &HttpAddress, path: &str) -> Result<Answer, String> {
        self.client.get(at, path, self.bearer.as_ref())
    }

    /// Waits as long as a worker wants, or a moment. False: there is no patience left.
    fn pause(&mut self, wanted: Option<Duration>) -> bool {
        let pause = wanted.unwrap_or(PAUSE).clamp(PAUSE / 10, PAUSE_MAX).min(self.patience_left);
        self.patience_left -= pause;
        std::thread::sleep(pause);
        !pause.is_zero()
    }
}

impl Task {
    /// Of a name such as `lines_7`.
    fn named(name: &Value) -> Option<Self> {
        let name = name.as_str()?;
        let partition = name.rsplit_once('_')?.1.parse().ok().filter(|partition| *partition >= 0)?;
        Some(Self { name: name.to_owned(), partition, keys_about: None, at: None, unknown: None })
    }

    /// What its name says beside the partition.
    pub(super) fn subtopology(&self) -> &str {
        self.name.rsplit_once('_').map_or(&self.name, |(subtopology, _)| subtopology)
    }
}

/// What a worker tells of the tasks that it runs.
fn sizes(body: &Value) -> Sizes {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut sizes = Sizes::new();
    for store in list(&body["stores"]) {
        for told in list(&store["tasks"]) {
            if let (Some(task), Some(store)) = (told["task"].as_str(), store["store"].as_str()) {
                sizes.entry(task.to_owned()).or_default().push((store.to_owned(), told["keys_about"].as_u64()));
            }
        }
    }
    sizes
}

/// Where a worker says that a task runs.
enum Owner {
    At(HttpAddress),
    /// Its owner does not say where it can be asked.
    Silent(String),
    Nobody,
}

fn owner(told: &Value) -> Owner {
    let address = told["address"].as_str().and_then(|text| text.parse().ok());
    match (address, told["client_id"].as_str()) {
        (Some(address), _) => Owner::At(address),
        (None, Some(id)) => Owner::Silent(format!(
            "it runs on {}, which does not say where it can be asked: set http.advertised there; if it is set, stop that worker once for \
             longer than its session time-out, because the group keeps what a static member said when it joined",
            output::shortened(&output::text(id.as_bytes()), 100)
        )),
        (None, None) => Owner::Nobody,
    }
}

/// Whether an answer is the one of the owner of a task.
fn is_about(body: &Value, task: &str) -> bool {
    let among = |tasks: &Value| tasks.as_array().is_some_and(|tasks| tasks.iter().any(|told| *told == *task));
    body["task"] == *task || among(&body["tasks"])
}

/// What a refusal means for whoever gave the command.
fn refused(at: &HttpAddress, status: StatusCode, answer: &Answer) -> CommandError {
    let sentence = output::shortened(&output::text(answer.error().as_bytes()), 1_000);
    match status {
        StatusCode::UNAUTHORIZED => CommandError::Failed(format!(
            "http://{at} wants its token, and was given none or another one: give a file with it as --token-file (the worker has it in \
             http.token.file)"
        )),
        StatusCode::BAD_REQUEST | StatusCode::URI_TOO_LONG => CommandError::Misused(sentence),
        status => CommandError::Failed(format!("http://{at} answers {}: {sentence}", status.as_u16())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_of_a_worker_and_has_no_path() {
        for (text, address) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://worker-1/", "worker-1:80"),
            ("http://[::1]:81", "[::1]:81"),
            ("http://[::1]", "[::1]:80"),
        ] {
            assert_eq!(text.parse::<WorkerUrl>().map(|url| url.0.to_string()), Ok(address.to_owned()));
        }
        for text in [
            "",
            "127.0.0.1:8080",
            "http://",
            "http://host:port",
            "http://host/stores",
            "http://u:p@host:80",
            "ftp://host",
        ] {
            assert!(text.parse::<WorkerUrl>().expect_err(text).contains("http://host:port"), "{text}");
        }
        assert!("https://host:80".parse::<WorkerUrl>().expect_err("no TLS").contains("no TLS"));
    }

    #[test]
    fn the_name_of_a_task_holds_its_partition() {
        let of =
            |name: &str| Task::named(&Value::from(name)).map(|task| (task.subtopology().to_owned(), task.partition));
        assert_eq!(of("my_lines_12"), Some(("my_lines".to_owned(), 12)));
        for wrong in ["", "lines", "lines_", "lines_-1", "lines_99999999999"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
