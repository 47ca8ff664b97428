//! The proxy against a broker that only echoes: it answers every frame in order with the correlation id and a code, and
//! says what it got.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::frame::{read_frame, write_frame};
use super::{ApiKey, Fault, Proxies, Proxy, Request, Rule, Script};

/// Long enough for a slow machine; a test that works never waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// The code in every answer of the echo broker.
const ANSWER_CODE: i16 = 48;

/// What the broker saw: which connection (counted from 0), which correlation id.
type Seen = (usize, i32);

fn echo_broker() -> (u16, Receiver<Seen>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    let (seen, seen_by_test) = mpsc::channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (stream, seen) = (stream.expect("accept"), seen.clone());
            thread::spawn(move || echo(stream, number, &seen));
        }
    });
    (port, seen_by_test)
}

fn echo(mut stream: TcpStream, number: usize, seen: &Sender<Seen>) {
    while let Ok(Some(bytes)) = read_frame(&mut stream) {
        let id = Request::parse(bytes).expect("whole headers arrive").correlation_id;
        let told = seen.send((number, id));
        let answer = [&id.to_be_bytes()[..], &0_i32.to_be_bytes(), &ANSWER_CODE.to_be_bytes()].concat();
        if told.is_err() || write_frame(&mut stream, &answer).is_err() {
            return;
        }
    }
}

fn proxy(broker: u16) -> Proxy {
    let proxy = Proxy::bind().expect("a free port");
    proxy.forward_to(broker);
    proxy
}

struct Client(TcpStream);

impl Client {
    fn connect(proxy: &Proxy) -> Self {
        Self::to(proxy.port())
    }

    fn to(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the proxy listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out above zero");
        Self(stream)
    }

    fn send(&mut self, frame: &[u8]) {
        write_frame(&mut self.0, frame).expect("the proxy reads");
    }

    /// The correlation id of the next answer; `None` when the connection was closed.
    fn answer(&mut self) -> Option<i32> {
        let frame = read_frame(&mut self.0).ok().flatten()?;
        super::frame::correlation_id(&frame)
    }

    fn ask(&mut self, frame: &[u8]) -> Option<i32> {
        self.send(frame);
        self.answer()
    }
}

fn request(api_key: ApiKey, id: i32, client: &str, body: &[u8]) -> Vec<u8> {
    let client_length = i16::try_from(client.len()).expect("a short name");
    let head =
        [&api_key.0.to_be_bytes()[..], &1_i16.to_be_bytes(), &id.to_be_bytes(), &client_length.to_be_bytes()].concat();
    [&head, client.as_bytes(), body].concat()
}

fn end_txn(id: i32, committed: bool) -> Vec<u8> {
    let body =
        [&3_i16.to_be_bytes()[..], b"app", &9_i64.to_be_bytes(), &0_i16.to_be_bytes(), &[u8::from(committed)]].concat();
    request(ApiKey::END_TXN, id, "writer", &body)
}

fn metadata(id: i32) -> Vec<u8> {
    request(ApiKey::METADATA, id, "writer", b"")
}

fn next(seen: &Receiver<Seen>) -> Seen {
    seen.recv_timeout(PATIENCE).expect("the broker gets a request")
}

#[test]
fn traffic_passes_in_order_and_is_counted() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let mut client = Client::connect(&proxy);
    for id in 0..200 {
        client.send(&metadata(id));
    }
    for id in 0..200 {
        assert_eq!(client.answer(), Some(id));
        assert_eq!(next(&seen), (0, id));
    }
    assert_eq!(proxy.requests(ApiKey::METADATA), 200);
}

#[test]
fn pipelined_frames_in_pieces_arrive_whole() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let held = proxy.inject(Rule::new(ApiKey::END_TXN, Fault::HoldAndTimeout));
    let mut client = Client::connect(&proxy);
    let mut wire = Vec::new();
    for frame in [metadata(1), end_txn(2, true), metadata(3)] {
        write_frame(&mut wire, &frame).expect("a vector takes everything");
    }
    client.0.set_nodelay(true).expect("a socket option");
    for piece in wire.chunks(3) {
        client.0.write_all(piece).expect("the proxy reads");
    }
    assert_eq!(client.answer(), Some(1));
    assert!(held.wait_fired(PATIENCE));
    held.release();
    assert_eq!((client.answer(), client.answer()), (Some(2), Some(3)));
    assert_eq!([next(&seen), next(&seen), next(&seen)], [(0, 1), (0, 2), (0, 3)]);
}

#[test]
fn what_a_network_does_not_pass_on_comes_when_it_does_again() {
    const MOMENT: Duration = Duration::from_millis(50);
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let mut client = Client::connect(&proxy);
    proxy.stall(false, true);
    client.send(&metadata(1));
    assert_eq!(next(&seen), (0, 1), "requests pass");
    client.0.set_read_timeout(Some(MOMENT)).expect("a time-out above zero");
    assert_eq!(client.answer(), None, "and answers do not");

    proxy.stall(true, false);
    client.0.set_read_timeout(Some(PATIENCE)).expect("a time-out above zero");
    assert_eq!(client.answer(), Some(1), "answers pass");
    client.send(&metadata(2));
    assert!(seen.recv_timeout(MOMENT).is_err(), "and requests do not");

    proxy.stall(false, false);
    assert_eq!((next(&seen), client.answer()), ((0, 2), Some(2)));
}

/// The story of kafka-facts A: the request is late, the client gives up and sends a copy, which is served; then the
/// original arrives.
#[test]
fn a_held_request_arrives_late_on_its_own_connection() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let held = proxy.inject(Rule::end_txn(true, Fault::HoldAndTimeout));

    let mut first = Client::connect(&proxy);
    first.send(&end_txn(1, true));
    first.send(&metadata(2));
    assert!(held.wait_fired(PATIENCE));
    assert!(held.answer().is_none());
    drop(first);

    let mut second = Client::connect(&proxy);
    assert_eq!(second.ask(&end_txn(3, true)), Some(3), "the copy passes");
    let copy = next(&seen);
    assert_eq!(copy.1, 3, "the original and what is behind it are still held");
    assert_eq!(seen.try_recv(), Err(TryRecvError::Empty));

    held.release();
    let (late, behind) = (next(&seen), next(&seen));
    assert_eq!((late.1, behind.1), (1, 2));
    assert_ne!(late.0, copy.0, "the original came on the connection it was sent on");
    let answer = held.wait_answer(PATIENCE).expect("the broker answers the late request");
    assert_eq!(answer.error_code(), Some(ANSWER_CODE));
    assert_eq!(second.ask(&metadata(4)), Some(4), "the new connection never noticed");
    proxy.assert_all_fired();
}

#[test]
fn a_held_request_holds_what_is_behind_it_and_nothing_else() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let held = proxy.inject(Rule::new(ApiKey::END_TXN, Fault::HoldAndTimeout));
    let (mut held_client, mut other) = (Client::connect(&proxy), Client::connect(&proxy));
    held_client.send(&end_txn(1, false));
    held_client.send(&metadata(2));
    assert!(held.wait_fired(PATIENCE));
    for id in 10..20 {
        assert_eq!(other.ask(&metadata(id)), Some(id));
        assert_eq!(next(&seen).1, id);
    }
    held.release();
    assert_eq!(
        (held_client.answer(), held_client.answer()),
        (Some(1), Some(2)),
        "a client that waited gets its answers"
    );
}

#[test]
fn hold_and_reset_closes_the_client_and_delivers_late() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let held = proxy.inject(Rule::end_txn(false, Fault::HoldAndReset));
    let mut client = Client::connect(&proxy);
    assert_eq!(client.ask(&end_txn(1, true)), Some(1), "a commit is not an abort");
    assert_eq!(client.ask(&end_txn(2, false)), None);
    assert!(held.wait_fired(PATIENCE));
    let mut second = Client::connect(&proxy);
    assert_eq!(second.ask(&end_txn(3, false)), Some(3));
    assert_eq!([next(&seen).1, next(&seen).1], [1, 3]);
    proxy.release_all();
    assert_eq!(next(&seen), (0, 2));
    assert!(held.wait_answer(PATIENCE).is_some());
}

#[test]
fn a_dropped_response_leaves_the_connection_usable() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let lost = proxy.inject(Rule::new(ApiKey::END_TXN, Fault::DropResponse).nth(2));
    let mut client = Client::connect(&proxy);
    assert_eq!(client.ask(&end_txn(1, true)), Some(1));
    client.send(&end_txn(2, true));
    client.send(&end_txn(3, true));
    assert_eq!(client.answer(), Some(3));
    assert!(lost.wait_fired(PATIENCE));
    assert_eq!(lost.answer().and_then(|answer| answer.error_code()), Some(ANSWER_CODE));
    assert_eq!([next(&seen).1, next(&seen).1, next(&seen).1], [1, 2, 3]);
}

#[test]
fn reset_after_forward_closes_when_the_broker_has_answered() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let reset = proxy.inject(Rule::end_txn(true, Fault::ResetAfterForward));
    let mut client = Client::connect(&proxy);
    assert_eq!(client.ask(&end_txn(1, true)), None);
    assert_eq!(next(&seen), (0, 1));
    assert!(reset.wait_fired(PATIENCE));
    assert!(reset.answer().is_some());
}

#[test]
fn a_delayed_request_arrives_after_its_time() {
    takes_its_time(Fault::Delay);
}

fn takes_its_time(delay: fn(Duration) -> Fault) {
    let (broker, _seen) = echo_broker();
    let proxy = proxy(broker);
    let time = Duration::from_millis(120);
    let delayed = proxy.inject(Rule::new(ApiKey::METADATA, delay(time)));
    let mut client = Client::connect(&proxy);
    let sent = Instant::now();
    assert_eq!(client.ask(&metadata(1)), Some(1));
    assert!(sent.elapsed() >= time);
    assert!(delayed.fired());
}

#[test]
fn rules_look_at_client_and_count() {
    let (broker, _seen) = echo_broker();
    let proxy = proxy(broker);
    let never = proxy.inject(Rule::new(ApiKey::METADATA, Fault::HoldAndReset).client_id_contains("reader"));
    let third = proxy.inject(Rule::new(ApiKey::METADATA, Fault::ResetAfterForward).nth(3));
    let mut client = Client::connect(&proxy);
    assert_eq!(
        [client.ask(&metadata(1)), client.ask(&metadata(2)), client.ask(&metadata(3))],
        [Some(1), Some(2), None]
    );
    assert!(third.wait_fired(PATIENCE));
    assert!(!never.fired());
}

#[test]
#[should_panic(expected = "faults that never happened")]
fn a_rule_that_never_fired_is_told() {
    let (broker, _seen) = echo_broker();
    let proxy = proxy(broker);
    proxy.inject(Rule::new(ApiKey::TXN_OFFSET_COMMIT, Fault::DropResponse));
    proxy.assert_all_fired();
}

#[test]
fn cut_closes_open_connections_and_new_ones_work() {
    let (broker, _seen) = echo_broker();
    let proxy = proxy(broker);
    let mut client = Client::connect(&proxy);
    assert_eq!(client.ask(&metadata(1)), Some(1));
    proxy.cut();
    assert_eq!(client.answer(), None);
    assert_eq!(Client::connect(&proxy).ask(&metadata(2)), Some(2));
}

#[test]
fn dropping_the_proxy_ends_clients_even_with_a_frame_held() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let held = proxy.inject(Rule::new(ApiKey::END_TXN, Fault::HoldAndTimeout));
    let mut client = Client::connect(&proxy);
    client.send(&end_txn(1, true));
    assert!(held.wait_fired(PATIENCE));
    drop(proxy);
    assert_eq!(client.answer(), None);
    assert_eq!(seen.try_recv(), Err(TryRecvError::Empty), "what was held is never delivered");
}

#[test]
fn a_broker_that_is_down_looks_like_a_closed_connection() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = free.local_addr().expect("a bound listener has an address").port();
    drop(free);
    let proxy = proxy(port);
    let mut client = Client::connect(&proxy);
    assert_eq!(client.answer(), None);
}

#[test]
fn a_doubled_request_arrives_twice_and_is_answered_once() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let doubled = proxy.inject(Rule::end_txn(true, Fault::Duplicate));
    let mut client = Client::connect(&proxy);
    client.send(&end_txn(1, true));
    client.send(&metadata(2));
    assert_eq!((client.answer(), client.answer()), (Some(1), Some(2)));
    assert_eq!([next(&seen).1, next(&seen).1, next(&seen).1], [1, 1, 2]);
    assert!(doubled.fired(), "the second answer came before that of the next request");
}

#[test]
fn a_request_in_pieces_arrives_whole_and_late() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let (pieces, pause) = (5, Duration::from_millis(20));
    let cut = proxy.inject(Rule::new(ApiKey::END_TXN, Fault::CutInPieces { pieces, pause }));
    let mut client = Client::connect(&proxy);
    let sent = Instant::now();
    assert_eq!(client.ask(&end_txn(1, true)), Some(1));
    assert!(sent.elapsed() >= pause * 4, "between five pieces are four pauses");
    assert_eq!(next(&seen), (0, 1));
    assert!(cut.fired());
}

#[test]
fn a_dropped_request_is_never_seen_and_what_is_behind_it_passes() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let dropped = proxy.inject(Rule::end_txn(true, Fault::DropRequest));
    let mut client = Client::connect(&proxy);
    client.send(&end_txn(1, true));
    assert_eq!(client.ask(&metadata(2)), Some(2));
    assert_eq!(next(&seen).1, 2);
    assert!(dropped.fired() && dropped.answer().is_none());
}

#[test]
fn a_held_answer_is_known_before_the_client_has_it() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let held = proxy.inject(Rule::end_txn(true, Fault::HoldResponse));
    let mut client = Client::connect(&proxy);
    client.send(&end_txn(1, true));
    client.send(&metadata(2));
    assert_eq!(held.wait_answer(PATIENCE).and_then(|answer| answer.error_code()), Some(ANSWER_CODE));
    assert_eq!([next(&seen).1, next(&seen).1], [1, 2], "requests pass");
    client.0.set_nonblocking(true).expect("a socket option");
    assert_eq!(client.answer(), None, "answers do not");
    client.0.set_nonblocking(false).expect("a socket option");
    held.release();
    assert_eq!((client.answer(), client.answer()), (Some(1), Some(2)));
}

#[test]
fn a_delayed_answer_comes_after_its_time() {
    takes_its_time(Fault::DelayResponse);
}

#[test]
fn the_client_is_told_another_error_than_the_broker_said() {
    let (broker, seen) = echo_broker();
    let proxy = proxy(broker);
    let told = proxy.inject(Rule::end_txn(true, Fault::AnswerError(-1)));
    let mut client = Client::connect(&proxy);
    client.send(&end_txn(1, true));
    let answer = read_frame(&mut client.0).expect("it is answered").expect("the connection is open");
    assert_eq!(answer[8..10], (-1_i16).to_be_bytes());
    assert_eq!(next(&seen), (0, 1));
    assert_eq!(told.wait_answer(PATIENCE).and_then(|answer| answer.error_code()), Some(ANSWER_CODE));
}

#[test]
fn rules_look_at_the_connection() {
    let (broker, _seen) = echo_broker();
    let proxy = proxy(broker);
    let second = proxy.inject(Rule::new(ApiKey::METADATA, Fault::ResetAfterForward).connection(2));
    let mut first = Client::connect(&proxy);
    assert_eq!(first.ask(&metadata(1)), Some(1));
    assert_eq!(Client::connect(&proxy).ask(&metadata(2)), None);
    assert_eq!(first.ask(&metadata(3)), Some(3));
    assert!(second.fired());
}

#[test]
fn a_second_condition_does_not_replace_the_first() {
    let (broker, _seen) = echo_broker();
    let proxy = proxy(broker);
    let abort = proxy.inject(Rule::end_txn(false, Fault::ResetAfterForward).when(|request| request.correlation_id > 2));
    let mut client = Client::connect(&proxy);
    assert_eq!(client.ask(&end_txn(1, false)), Some(1), "the second one does not hold");
    assert_eq!(client.ask(&end_txn(3, true)), Some(3), "the first one does not hold");
    assert_eq!(client.ask(&end_txn(4, false)), None);
    assert!(abort.fired());
}

#[test]
fn a_rule_that_is_withdrawn_holds_and_owes_nothing() {
    let (broker, _seen) = echo_broker();
    let proxy = proxy(broker);
    let rule = proxy.inject(Rule::new(ApiKey::METADATA, Fault::HoldAndTimeout));
    let never = proxy.inject(Rule::new(ApiKey::END_TXN, Fault::DropRequest));
    let mut client = Client::connect(&proxy);
    client.send(&metadata(1));
    assert!(rule.wait_fired(PATIENCE));
    proxy.withdraw(&rule);
    proxy.withdraw(&never);
    assert_eq!((client.answer(), client.ask(&end_txn(2, true))), (Some(1), Some(2)));
    proxy.assert_all_fired();
}

#[test]
fn a_rule_of_several_proxies_counts_over_all_and_fires_once() {
    let (brokers, _seen): (Vec<_>, Vec<_>) = (0..3).map(|_| echo_broker()).unzip();
    let proxies = Proxies::bind(3).expect("free ports");
    proxies.forward_to(brokers);
    let third = proxies.inject(Rule::new(ApiKey::METADATA, Fault::ResetAfterForward).nth(3));
    let mut clients: Vec<_> = proxies.ports().into_iter().map(Client::to).collect();
    let answers: Vec<_> = clients.iter_mut().map(|client| client.ask(&metadata(1))).collect();
    assert_eq!(answers, [Some(1), Some(1), None], "the third request in the cluster is hit");
    assert_eq!(clients[0].ask(&metadata(2)), Some(2), "and no other");
    assert!(third.fired());
    assert_eq!(proxies.requests(ApiKey::METADATA), 4);
    proxies.assert_all_fired();
}

#[test]
#[should_panic(expected = "faults that never happened")]
fn a_rule_that_fired_on_no_proxy_is_told() {
    let proxies = Proxies::bind(3).expect("free ports");
    proxies.inject(Rule::new(ApiKey::END_TXN, Fault::Duplicate));
    proxies.assert_all_fired();
}

#[test]
fn a_seed_gives_the_same_script_and_no_request_two_faults() {
    let script = |seed| Script::from_seed(seed, &[ApiKey::END_TXN, ApiKey::PRODUCE], 12, 10);
    assert_eq!(script(5).to_string(), script(5).to_string());
    assert_ne!(script(5).to_string(), script(6).to_string());
    let mut places: Vec<_> = script(5).rules().iter().map(|rule| (rule.api_key, rule.nth)).collect();
    assert!(places.iter().all(|(_, nth)| (1..=10).contains(nth)));
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 12);
}

#[test]
fn all_faults_of_a_script_happen() {
    let (broker, _seen) = echo_broker();
    let proxies = Proxies::bind(1).expect("a free port");
    proxies.forward_to([broker]);
    proxies.play(&Script::from_seed(1, &[ApiKey::METADATA], 14, 14));
    // A request that is dropped, or whose answer is, is given up, and all else is answered or closes the connection.
    for id in 0..14 {
        let mut client = Client::to(proxies.ports()[0]);
        client.0.set_read_timeout(Some(Duration::from_millis(600))).expect("a time-out above zero");
        client.ask(&metadata(id));
    }
    proxies.assert_all_fired();
}
