//! One client connection and the broker connection that belongs to it.
//!
//! Three threads share a [`Connection`]: *requests* reads the client's frames and puts them into the lane, *forward*
//! takes them out in order and writes them to the broker, *responses* reads the broker's answers. A broker serves one
//! connection in order, so a held frame holds everything behind it on its lane; other connections pass. When the client
//! goes away, the lane stays as long as it holds a frame, and the broker's side stays open until everything written to
//! it has been answered: to the broker, the packets were merely late.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use super::frame::{self, ApiKey, Request, Response};
use super::{Fault, Injection, Shared};

/// Frames that wait in one lane before the client is no longer read.
const LANE_FRAMES_MAX: usize = 10_000;

/// A client's connection and the broker connection behind it.
pub(super) struct Connection {
    /// Counted from 1, in the order in which the proxy has accepted them.
    number: usize,
    client: TcpStream,
    broker: TcpStream,
    lane: Mutex<Lane>,
    changed: Condvar,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Step>,
    in_flight: VecDeque<Asked>,
    client_gone: bool,
    broker_gone: bool,
}

/// A frame on its way to the broker, with the fault that hit it.
struct Step {
    request: Request,
    fault: Option<Arc<Injection>>,
}

/// A request that the broker has not answered yet.
struct Asked {
    correlation_id: i32,
    api_key: ApiKey,
    api_version: i16,
    fault: Option<Arc<Injection>>,
}

impl Connection {
    /// Connects to the broker. Nothing flows before [`start`](Self::start).
    pub(super) fn open(
        client: TcpStream,
        broker: SocketAddr,
        number: usize,
        shared: &Arc<Shared>,
    ) -> Result<Arc<Self>> {
        let broker = TcpStream::connect(broker).context("connect to the broker behind the proxy")?;
        client.set_nodelay(true).context("set TCP_NODELAY towards the client")?;
        broker.set_nodelay(true).context("set TCP_NODELAY towards the broker")?;
        Ok(Arc::new(Self {
            number,
            client,
            broker,
            lane: Mutex::default(),
            changed: Condvar::new(),
            shared: Arc::clone(shared),
        }))
    }

    /// Starts the threads. The connection closes itself when both sides are done.
    pub(super) fn start(self: &Arc<Self>) -> Result<()> {
        self.spawn("proxy-requests", Self::requests)?;
        self.spawn("proxy-forward", Self::forward)?;
        self.spawn("proxy-responses", Self::responses)
    }

    /// Closes both sides, now.
    pub(super) fn close(&self) {
        shut(&self.client);
        shut(&self.broker);
        self.update(|lane| {
            lane.client_gone = true;
            lane.broker_gone = true;
        });
    }

    fn spawn(self: &Arc<Self>, name: &str, run: fn(&Self)) -> Result<()> {
        let connection = Arc::clone(self);
        let builder = thread::Builder::new().name(name.to_owned());
        builder.spawn(move || run(&connection)).with_context(|| format!("start thread {name}"))?;
        Ok(())
    }

    /// Client to lane. Ends when the client closes, or when a fault closes it.
    fn requests(&self) {
        let mut client = &self.client;
        while let Ok(Some(bytes)) = frame::read_frame(&mut client) {
            let Ok(request) = Request::parse(bytes) else { break };
            let fault = self.shared.judge(&request, self.number);
            let reset = matches!(&fault, Some(injection) if injection.fault() == Fault::HoldAndReset);
            self.enqueue(Step { request, fault });
            if reset {
                break;
            }
        }
        shut(&self.client);
        self.update(|lane| lane.client_gone = true);
    }

    fn enqueue(&self, step: Step) {
        let held = step.fault.clone().filter(|injection| injection.fault().holds());
        let resets = held.as_ref().is_some_and(|injection| injection.fault() == Fault::HoldAndReset);
        let full = |lane: &mut Lane| lane.waiting.len() >= LANE_FRAMES_MAX && !lane.broker_gone;
        let mut lane = self.changed.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        lane.waiting.push_back(step);
        drop(lane);
        if resets {
            shut(&self.client);
        }
        self.changed.notify_all();
        if let Some(injection) = held {
            injection.mark();
        }
    }

    /// Lane to broker, in order. Ends when nothing more can come and everything written has been answered, or when the
    /// broker is gone.
    fn forward(&self) {
        while let Some(step) = self.next_step() {
            if let Some(injection) = &step.fault {
                injection.hold_back();
            }
            self.shared.await_flow(|stalled| stalled.requests);
            if self.write(&step).is_err() {
                break;
            }
        }
        shut(&self.broker);
        shut(&self.client);
    }

    fn write(&self, step: &Step) -> io::Result<()> {
        let mut broker = &self.broker;
        let bytes = step.request.bytes();
        match step.fault.as_ref().map(|injection| (injection, injection.fault())) {
            Some((injection, Fault::DropRequest)) => {
                injection.mark();
                return Ok(());
            }
            Some((_, Fault::Duplicate)) => {
                self.expect_answer(&step.request, None);
                frame::write_frame(&mut broker, bytes)?;
            }
            Some((injection, Fault::CutInPieces { pieces, pause })) => {
                self.expect_answer(&step.request, step.fault.clone());
                injection.mark();
                return frame::write_pieces(&mut broker, bytes, pieces, || injection.pause(pause));
            }
            _ => {}
        }
        self.expect_answer(&step.request, step.fault.clone());
        frame::write_frame(&mut broker, bytes)
    }

    /// Before the request is written, so that its answer finds it.
    fn expect_answer(&self, request: &Request, fault: Option<Arc<Injection>>) {
        let &Request { correlation_id, api_key, api_version, .. } = request;
        self.update(|lane| lane.in_flight.push_back(Asked { correlation_id, api_key, api_version, fault }));
    }

    fn next_step(&self) -> Option<Step> {
        let idle = |lane: &mut Lane| {
            let more_may_come = !lane.client_gone || !lane.in_flight.is_empty();
            lane.waiting.is_empty() && more_may_come && !lane.broker_gone
        };
        let mut lane = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        if lane.broker_gone {
            return None;
        }
        let step = lane.waiting.pop_front();
        drop(lane);
        self.changed.notify_all();
        step
    }

    /// Broker to client. Ends when the broker closes.
    fn responses(&self) {
        let mut broker = &self.broker;
        while let Ok(Some(bytes)) = frame::read_frame(&mut broker) {
            self.shared.await_flow(|stalled| stalled.answers);
            let asked = frame::correlation_id(&bytes).and_then(|id| self.asked(id));
            self.answer(asked, &bytes);
        }
        shut(&self.client);
        self.update(|lane| lane.broker_gone = true);
    }

    /// Takes the request that a response belongs to out of the list.
    fn asked(&self, correlation_id: i32) -> Option<Asked> {
        let mut lane = self.lock();
        let at = lane.in_flight.iter().position(|asked| asked.correlation_id == correlation_id)?;
        lane.in_flight.remove(at)
    }

    fn answer(&self, asked: Option<Asked>, bytes: &[u8]) {
        let Some((injection, asked)) = asked.and_then(|asked| Some((asked.fault.clone()?, asked))) else {
            self.pass_to_client(bytes);
            return self.changed.notify_all();
        };
        let fault = injection.fault();
        // Before the client has it: what the client does then comes behind it, for rules that wait for this one.
        injection.record(Response::new(asked.api_key, asked.api_version, bytes.to_owned()));
        if fault.holds_answer() {
            injection.hold_answer_back();
        }
        match fault {
            Fault::HoldAndTimeout
            | Fault::HoldAndReset
            | Fault::Delay(_)
            | Fault::CutInPieces { .. }
            | Fault::DelayResponse(_)
            | Fault::HoldResponse => self.pass_to_client(bytes),
            // Of a request that was doubled this is the second answer, for which no client has asked.
            Fault::DropResponse | Fault::Duplicate => {}
            Fault::DropRequest => panic!("the broker answers a request that it never got"),
            Fault::AnswerError(code) => {
                let told = frame::with_error(bytes, asked.api_key, asked.api_version, code);
                self.pass_to_client(&told.expect("rules for this fault pick requests whose error has a fixed place"));
            }
            Fault::HideBrokers => {
                let hidden = frame::without_brokers(bytes, asked.api_version);
                self.pass_to_client(&hidden.expect("rules for this fault pick Metadata requests"));
            }
            Fault::ResetAfterForward => shut(&self.client),
        }
        self.changed.notify_all();
    }

    /// A client that is gone loses its answer, as it would on a network.
    fn pass_to_client(&self, bytes: &[u8]) {
        let mut client = &self.client;
        if frame::write_frame(&mut client, bytes).is_err() {
            shut(&self.client);
        }
    }

    fn update(&self, change: impl FnOnce(&mut Lane)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes both directions. It can only fail on a socket whose peer was faster, and then there is nothing left to close.
fn shut(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}
