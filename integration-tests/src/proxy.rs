//! A TCP proxy between one client process and one broker that can hold, delay, double, cut up, lose and cut off single
//! Kafka requests and their answers.
//!
//! What a network may do and no general proxy can: keep one `EndTxn` for ten seconds and deliver it in the middle of
//! the next transaction. Rules are installed while traffic flows and fire once each. In front of several brokers stand
//! [`Proxies`], which share their rules; a [`Script`] is a list of rules that comes from a seed.
//!
//! 1. [`Proxy::bind`] listens on a port of its own; the client's `bootstrap.servers` is [`Proxy::bootstrap`].
//! 2. The broker starts with [`proxy_ports`](crate::broker::ClusterConfig::proxy_ports): a second listener, `PROXIED`,
//!    that only the proxy connects to ([`Proxy::forward_to`]) and whose `advertised.listeners` entry is the proxy's
//!    port. What a client learns from metadata over that listener leads back here, so nothing goes past the proxy.
//! 3. [`Proxy::inject`] installs a [`Rule`]; the [`Injection`] that comes back says whether it fired and releases what
//!    it holds.
//! 4. [`Proxy::assert_all_fired`] at the end of a test: a fault that never happened proves nothing.
//!
//! A broker serves the requests of one connection in order, so a held request holds what its connection sends later.
//! librdkafka gives up on it after `socket.timeout.ms` (or the transaction's own time limit), closes the connection and
//! sends a copy over a new one, which passes. The old connection to the broker stays open behind the proxy;
//! [`Injection::release`] sends the held frame on it, and after it what the client had sent behind it, exactly as a
//! network with a long queue would.

mod cluster;
mod connection;
mod frame;
mod script;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

pub use self::cluster::Proxies;
use self::connection::Connection;
pub use self::frame::{ApiKey, EndTxn, Request, Response};
pub use self::script::Script;

/// What happens to the request that a [`Rule`] picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is kept back until it is released, and everything behind it on its connection. The client runs into its
    /// time-out.
    HoldAndTimeout,
    /// It is kept back until it is released, and the client's connection is closed at once. What the client had sent
    /// behind it is lost. Closing is a FIN, which librdkafka treats as it treats a reset (`_TRANSPORT`).
    HoldAndReset,
    /// The broker gets it; its answer is lost. Later answers on the connection pass.
    DropResponse,
    /// The broker gets it and answers; in place of the answer the client's connection is closed, so the request has
    /// certainly taken effect.
    ResetAfterForward,
    /// It is sent after this time, and everything behind it on its connection waits too.
    Delay(Duration),
    /// The broker gets it twice, one right behind the other. The client gets the first answer; the second is the
    /// injection's.
    Duplicate,
    /// It is written in so many pieces, with a pause between two.
    CutInPieces {
        /// How many, of about the same length; never more than the frame has bytes.
        pieces: usize,
        /// How long the broker waits for the next one.
        pause: Duration,
    },
    /// The broker never gets it; what is behind it on its connection passes.
    DropRequest,
    /// The broker gets it at once; its answer, and all behind it on the connection, comes after this time.
    DelayResponse(Duration),
    /// The broker gets it at once; its answer is kept back until it is released, and all behind it on the connection.
    HoldResponse,
    /// The broker gets it and does as it says; the client is told this error. For `AddOffsetsToTxn` and `EndTxn`, up to
    /// version 2.
    AnswerError(i16),
    /// For a `Metadata` request: the answer names the topics, and not one broker, as a broker's does that was frozen for
    /// longer than its controller waits and has just woken up.
    HideBrokers,
}

impl Fault {
    fn holds(self) -> bool {
        match self {
            Self::HoldAndTimeout | Self::HoldAndReset => true,
            Self::DropResponse
            | Self::ResetAfterForward
            | Self::Delay(_)
            | Self::Duplicate
            | Self::CutInPieces { .. }
            | Self::DropRequest
            | Self::DelayResponse(_)
            | Self::HoldResponse
            | Self::AnswerError(_)
            | Self::HideBrokers => false,
        }
    }

    fn holds_answer(self) -> bool {
        matches!(self, Self::DelayResponse(_) | Self::HoldResponse)
    }
}

type Condition = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// Which request is hit, and by what.
#[derive(Clone)]
pub struct Rule {
    api_key: ApiKey,
    fault: Fault,
    nth: u32,
    connection: Option<usize>,
    client_id_contains: Option<String>,
    condition: Option<Condition>,
}

impl Rule {
    /// The first request of this kind that is seen from now on.
    pub fn new(api_key: ApiKey, fault: Fault) -> Self {
        Self { api_key, fault, nth: 1, connection: None, client_id_contains: None, condition: None }
    }

    /// The first `EndTxn` that commits (or the first that aborts).
    pub fn end_txn(committed: bool, fault: Fault) -> Self {
        Self::new(ApiKey::END_TXN, fault)
            .when(move |request| request.end_txn().is_some_and(|end| end.committed == committed))
    }

    /// The n-th request, counted from 1, of those that the rule's other conditions let through.
    #[must_use]
    pub fn nth(mut self, nth: u32) -> Self {
        assert!(nth >= 1, "requests are counted from 1");
        self.nth = nth;
        self
    }

    /// The same requests, hit by something else.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// Only requests on the connection that its proxy has accepted as the n-th, counted from 1.
    #[must_use]
    pub fn connection(mut self, nth: usize) -> Self {
        assert!(nth >= 1, "connections are counted from 1");
        self.connection = Some(nth);
        self
    }

    /// Only requests of clients whose `client.id` contains this.
    #[must_use]
    pub fn client_id_contains(mut self, part: &str) -> Self {
        self.client_id_contains = Some(part.to_owned());
        self
    }

    /// Only requests for which this holds too, beside what was asked for before.
    #[must_use]
    pub fn when(mut self, condition: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(match self.condition.take() {
            None => Arc::new(condition),
            Some(first) => Arc::new(move |request| first(request) && condition(request)),
        });
        self
    }

    fn picks(&self, request: &Request, connection: usize) -> bool {
        self.api_key == request.api_key
            && self.connection.is_none_or(|nth| nth == connection)
            && self.client_id_contains.as_ref().is_none_or(|part| request.client_id.contains(part))
            && self.condition.as_ref().is_none_or(|condition| condition(request))
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("api_key", &self.api_key)
            .field("fault", &self.fault)
            .field("nth", &self.nth)
            .field("connection", &self.connection)
            .field("client_id_contains", &self.client_id_contains)
            .field("condition", &self.condition.is_some())
            .finish()
    }
}

/// An installed [`Rule`]: whether it fired, what it holds, what the broker said.
#[derive(Debug)]
pub struct Injection {
    rule: Rule,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    seen: u32,
    fired: bool,
    released: bool,
    stopped: bool,
    answer: Option<Response>,
    transactional_id: Option<String>,
}

impl Injection {
    fn new(rule: Rule) -> Arc<Self> {
        Arc::new(Self { rule, progress: Mutex::default(), changed: Condvar::new() })
    }

    /// Whether the fault has taken effect: the request is held or lost, its delay began, its answer was held, changed or
    /// lost, its copy was answered, or its connection closed.
    pub fn fired(&self) -> bool {
        self.lock().fired
    }

    /// Waits until the fault has taken effect; says whether it did in time.
    pub fn wait_fired(&self, timeout: Duration) -> bool {
        self.wait_until(timeout, |progress| progress.fired).fired
    }

    /// Sends the held request to the broker, on the connection it came in on; or the held answer to the client. A rule
    /// that has not fired yet will not hold any more.
    pub fn release(&self) {
        self.update(|progress| progress.released = true);
    }

    /// The transactional id that the request names that was hit, if it names one.
    pub fn transactional_id(&self) -> Option<String> {
        self.lock().transactional_id.clone()
    }

    /// What the broker answered to the request that was hit, once it has.
    pub fn answer(&self) -> Option<Response> {
        self.lock().answer.clone()
    }

    /// Waits for the broker's answer to the request that was hit.
    pub fn wait_answer(&self, timeout: Duration) -> Option<Response> {
        self.wait_until(timeout, |progress| progress.answer.is_some()).answer.clone()
    }

    fn fault(&self) -> Fault {
        self.rule.fault
    }

    /// Counts a request; true for the one that is hit.
    fn hits(&self, request: &Request, connection: usize) -> bool {
        if !self.rule.picks(request, connection) {
            return false;
        }
        let mut progress = self.lock();
        progress.seen += 1;
        let hits = progress.seen == self.rule.nth;
        if hits {
            progress.transactional_id = request.transactional_id();
        }
        hits
    }

    fn mark(&self) {
        self.update(|progress| progress.fired = true);
    }

    /// Keeps the forwarding thread for as long as the fault says.
    fn hold_back(&self) {
        match self.fault() {
            Fault::Delay(time) => {
                self.mark();
                self.pause(time);
            }
            Fault::HoldAndTimeout | Fault::HoldAndReset => self.wait_released(),
            Fault::DropResponse
            | Fault::ResetAfterForward
            | Fault::Duplicate
            | Fault::CutInPieces { .. }
            | Fault::DropRequest
            | Fault::DelayResponse(_)
            | Fault::HoldResponse
            | Fault::AnswerError(_)
            | Fault::HideBrokers => {}
        }
    }

    /// Keeps the answering thread for as long as the fault says.
    fn hold_answer_back(&self) {
        match self.fault() {
            Fault::DelayResponse(time) => self.pause(time),
            Fault::HoldResponse => self.wait_released(),
            other => panic!("{other:?} holds no answer"),
        }
    }

    fn pause(&self, time: Duration) {
        drop(self.wait_until(time, |progress| progress.stopped));
    }

    fn wait_released(&self) {
        let held = |progress: &mut Progress| !progress.released && !progress.stopped;
        drop(self.changed.wait_while(self.lock(), held).unwrap_or_else(PoisonError::into_inner));
    }

    fn record(&self, answer: Response) {
        self.update(|progress| {
            progress.fired = true;
            progress.answer = Some(answer);
        });
    }

    fn stop(&self) {
        self.update(|progress| progress.stopped = true);
    }

    fn wait_until(&self, timeout: Duration, reached: impl Fn(&Progress) -> bool) -> MutexGuard<'_, Progress> {
        let pending = |progress: &mut Progress| !reached(progress);
        self.changed.wait_timeout_while(self.lock(), timeout, pending).unwrap_or_else(PoisonError::into_inner).0
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The proxy. It stops, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    acceptor: Option<JoinHandle<()>>,
}

/// What the connections' threads share with the proxy.
#[derive(Default)]
struct Shared {
    broker: Mutex<Option<SocketAddr>>,
    injections: Mutex<Vec<Arc<Injection>>>,
    connections: Mutex<Vec<Weak<Connection>>>,
    /// How many have been accepted so far.
    accepted: AtomicUsize,
    requests: Mutex<BTreeMap<ApiKey, u64>>,
    stalled: Mutex<Stalled>,
    flows: Condvar,
    stopping: AtomicBool,
}

/// Which way nothing is passed on.
#[derive(Clone, Copy, Debug, Default)]
struct Stalled {
    requests: bool,
    answers: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("injections", &self.injections)
            .field("requests", &self.requests)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens on a free port. Clients are turned away until [`forward_to`](Self::forward_to) says where to go.
    ///
    /// # Errors
    /// No port is free, or no thread can be started.
    pub fn bind() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on a free port of 127.0.0.1")?;
        let port = listener.local_addr().context("read the proxy's own port")?.port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("proxy-accept".to_owned())
            .spawn(move || accepting.accept_all(&listener))
            .context("start the proxy's accepting thread")?;
        Ok(Self { shared, port, acceptor: Some(acceptor) })
    }

    /// The broker's listener on this machine that new connections go to.
    pub fn forward_to(&self, broker_port: u16) {
        *lock(&self.shared.broker) = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, broker_port)));
    }

    /// The port clients connect to, and the broker advertises.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The client's `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Installs a rule. Every rule counts every request it picks; where two hit the same one, the older rule takes it.
    pub fn inject(&self, rule: Rule) -> Arc<Injection> {
        let injection = Injection::new(rule);
        self.install(&injection);
        injection
    }

    fn install(&self, injection: &Arc<Injection>) {
        lock(&self.shared.injections).push(Arc::clone(injection));
    }

    /// Takes a rule out again, whether it has fired or not, and releases what it holds: what it was for is over.
    pub fn withdraw(&self, injection: &Arc<Injection>) {
        lock(&self.shared.injections).retain(|known| !Arc::ptr_eq(known, injection));
        injection.release();
    }

    /// How many requests of a kind clients have sent so far, copies included.
    pub fn requests(&self, api_key: ApiKey) -> u64 {
        lock(&self.shared.requests).get(&api_key).copied().unwrap_or(0)
    }

    /// Releases everything that is held.
    pub fn release_all(&self) {
        lock(&self.shared.injections).iter().for_each(|injection| injection.release());
    }

    /// From now on passes requests, answers or both on no more, or again: a network that loses packets, and tells nobody.
    /// What has not passed by then is kept, and passes when that is over.
    pub fn stall(&self, requests: bool, answers: bool) {
        *lock(&self.shared.stalled) = Stalled { requests, answers };
        self.shared.flows.notify_all();
    }

    /// Closes every connection that is open now, on both sides: a network that fails for all.
    pub fn cut(&self) {
        self.shared.close_connections();
    }

    /// # Panics
    /// A rule never fired, so the test has not tested what it says.
    pub fn assert_all_fired(&self) {
        let idle: Vec<String> = lock(&self.shared.injections)
            .iter()
            .filter(|injection| !injection.fired())
            .map(|injection| format!("{:?} after {} requests", injection.rule, injection.lock().seen))
            .collect();
        assert!(idle.is_empty(), "faults that never happened: {}", idle.join("; "));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.stall(false, false);
        // The acceptor sits in `accept`: one connection of our own wakes it.
        let woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
        self.shared.close_connections();
        lock(&self.shared.injections).iter().for_each(|injection| injection.stop());
        if let Some(acceptor) = self.acceptor.take().filter(|_| woken) {
            acceptor.join().expect("the accepting thread has no panic of its own");
        }
    }
}

impl Shared {
    fn accept_all(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            // A broker that is down looks to the client as it would without us: the connection closes at once.
            let opened = client.context("accept").and_then(|client| self.open(client));
            if let Err(error) = opened {
                tracing::debug!(error = format!("{error:#}"), "proxy connection refused");
            }
        }
    }

    /// The connection is known before anything flows on it, so that [`Proxy::cut`] reaches it.
    fn open(self: &Arc<Self>, client: TcpStream) -> Result<()> {
        let broker = lock(&self.broker).context("the proxy does not know its broker yet")?;
        let number = self.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        let connection = Connection::open(client, broker, number, self)?;
        let mut connections = lock(&self.connections);
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(&connection));
        drop(connections);
        connection.start()?;
        // One that was accepted while the proxy stopped came too late to be closed with the others.
        if self.stopping.load(Ordering::SeqCst) {
            connection.close();
        }
        Ok(())
    }

    fn close_connections(&self) {
        for connection in lock(&self.connections).drain(..).filter_map(|connection| connection.upgrade()) {
            connection.close();
        }
    }

    fn await_flow(&self, stalls: impl Fn(Stalled) -> bool) {
        let waits = |stalled: &mut Stalled| stalls(*stalled);
        drop(self.flows.wait_while(lock(&self.stalled), waits).unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts a request and finds the fault that hits it.
    fn judge(&self, request: &Request, connection: usize) -> Option<Arc<Injection>> {
        *lock(&self.requests).entry(request.api_key).or_default() += 1;
        let injections = lock(&self.injections);
        let mut hit = None;
        for injection in injections.iter() {
            if injection.hits(request, connection) && hit.is_none() {
                hit = Some(Arc::clone(injection));
            }
        }
        hit
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
