//! What a service manager such as systemd is told: that the worker is ready, that it lives, that it stops.
//!
//! It is the runtime's own, and no stable API.
//!
//! The stream threads say so themselves, each after its turn, and no thread of its own keeps time: a sign of life goes out
//! only when every one of them has turned since the last. So a loop that hangs is noticed, and nothing else is.
//!
//! The protocol is a datagram of text to the socket that `NOTIFY_SOCKET` names. Ready means that every thread has had its
//! place in the group; tasks may still restore, which can take hours and is no reason to start anew.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// Signs of life in the time that the service manager allows: one may be late.
const SIGNS_OF_LIFE: u32 = 2;

/// What the service manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Every stream thread has its place in the group.
    Ready,
    /// Every stream thread has turned.
    Alive,
    /// The worker is told to stop, or cannot go on.
    Stopping,
}

/// Tells one event to the socket of this name.
///
/// # Errors
/// Nobody listens there, or not to us.
pub fn tell(notify_socket: &OsStr, event: Event) -> io::Result<()> {
    let text: &[u8] = match event {
        Event::Ready => b"READY=1",
        Event::Alive => b"WATCHDOG=1",
        Event::Stopping => b"STOPPING=1",
    };
    UnixDatagram::unbound()?.send_to_addr(text, &address(notify_socket)?).map(drop)
}

/// A path, or behind an `@` a name that is no file.
fn address(notify_socket: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = notify_socket.as_bytes().strip_prefix(b"@") {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    SocketAddr::from_pathname(notify_socket)
}

/// The heartbeat of a stream thread. Dropping it tells that the worker stops: no thread ends alone.
#[derive(Debug)]
pub struct Heartbeat<C: Clock> {
    manager: Arc<ServiceManager<C>>,
    thread: usize,
}

/// The heartbeats of so many stream threads, for the service manager that the environment names. Where it names none
/// they do nothing.
pub fn heartbeats<C: Clock>(threads: usize, clock: C) -> impl Iterator<Item = Heartbeat<C>> {
    let variable = |name| std::env::var_os(name);
    let watchdog = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
    let pulse = Mutex::new(Pulse::new(threads, watchdog));
    let manager = Arc::new(ServiceManager { notify_socket: variable("NOTIFY_SOCKET"), pulse, clock });
    (0..threads).map(move |thread| Heartbeat { manager: manager.clone(), thread })
}

impl<C: Clock> Heartbeat<C> {
    /// The thread has turned; `is_member`: it has its place in the group.
    pub fn beat(&self, is_member: bool) {
        self.manager.tell(|pulse, now| pulse.turned(self.thread, is_member, now));
    }
}

impl<C: Clock> Drop for Heartbeat<C> {
    fn drop(&mut self) {
        self.manager.tell(|pulse, _| pulse.stopping());
    }
}

#[derive(Debug)]
struct ServiceManager<C> {
    notify_socket: Option<OsString>,
    pulse: Mutex<Pulse>,
    clock: C,
}

impl<C: Clock> ServiceManager<C> {
    fn tell(&self, decide: impl FnOnce(&mut Pulse, Duration) -> Option<Event>) {
        let Some(notify_socket) = &self.notify_socket else { return };
        let now = self.clock.monotonic();
        let event = decide(&mut self.pulse.lock().unwrap_or_else(PoisonError::into_inner), now);
        if let Some(event) = event
            && let Err(error) = tell(notify_socket, event)
        {
            tracing::warn!("the service manager at {} is not told {event:?}: {error}", notify_socket.display());
        }
    }
}

/// How long the service manager waits for a sign of life of this process; `None`: it does not.
fn watchdog(microseconds: Option<OsString>, process: Option<OsString>, own: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
    // A parent that was meant hands its environment on.
    let is_meant = process.is_none_or(|process| number(process) == Some(u64::from(own)));
    let microseconds = microseconds.and_then(number).filter(|&microseconds| microseconds > 0);
    microseconds.filter(|_| is_meant).map(Duration::from_micros)
}

/// Decides what is due.
#[derive(Debug)]
struct Pulse {
    threads: Vec<Beat>,
    alive_every: Option<Duration>,
    alive_at: Duration,
    ready: bool,
    stopping: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Beat {
    /// It has had its place in the group.
    joined: bool,
    /// It has turned since the last sign of life.
    turned: bool,
}

impl Pulse {
    fn new(threads: usize, watchdog: Option<Duration>) -> Self {
        Self {
            threads: vec![Beat::default(); threads],
            alive_every: watchdog.map(|watchdog| watchdog / SIGNS_OF_LIFE),
            alive_at: Duration::ZERO,
            ready: false,
            stopping: false,
        }
    }

    fn turned(&mut self, thread: usize, is_member: bool, now: Duration) -> Option<Event> {
        let beat = &mut self.threads[thread];
        beat.joined |= is_member;
        beat.turned = true;
        if !self.ready && self.threads.iter().all(|beat| beat.joined) {
            self.ready = true;
            return Some(Event::Ready);
        }
        let is_due = self.alive_every.is_some_and(|every| now >= self.alive_at + every);
        if !is_due || !self.threads.iter().all(|beat| beat.turned) {
            return None;
        }
        self.alive_at = now;
        self.threads.iter_mut().for_each(|beat| beat.turned = false);
        Some(Event::Alive)
    }

    fn stopping(&mut self) -> Option<Event> {
        let first = !self.stopping;
        self.stopping = true;
        first.then_some(Event::Stopping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    const SECOND: Duration = Duration::from_secs(1);

    fn received(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(10 * SECOND)).expect("a time-out above zero is taken");
        let mut text = [0; 64];
        let length = socket.recv(&mut text).expect("the datagram was sent before");
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn events_reach_a_socket_with_a_path_and_one_without() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("the path is free");
        for (event, text) in [(Event::Ready, "READY=1"), (Event::Alive, "WATCHDOG=1"), (Event::Stopping, "STOPPING=1")]
        {
            tell(path.as_os_str(), event).expect("somebody listens");
            assert_eq!(received(&socket), text);
        }
        #[cfg(target_os = "linux")]
        {
            let name = OsString::from(format!("@processor-{}", std::process::id()));
            let socket = UnixDatagram::bind_addr(&address(&name).expect("the name is short")).expect("it is free");
            tell(&name, Event::Ready).expect("somebody listens");
            assert_eq!(received(&socket), "READY=1");
        }
        assert!(tell(directory.path().join("nobody").as_os_str(), Event::Ready).is_err());
    }

    #[test]
    fn ready_is_told_once_when_every_thread_has_had_its_place() {
        let mut pulse = Pulse::new(2, None);
        assert_eq!(pulse.turned(0, true, SECOND), None);
        assert_eq!(pulse.turned(1, false, SECOND), None);
        // A rebalance has begun, and the first thread is between two generations.
        assert_eq!(pulse.turned(0, false, SECOND), None);
        assert_eq!(pulse.turned(1, true, SECOND), Some(Event::Ready));
        assert_eq!(pulse.turned(0, true, SECOND), None);
        assert_eq!(pulse.turned(1, true, SECOND), None);
    }

    #[test]
    fn one_thread_that_hangs_silences_the_worker() {
        let mut pulse = Pulse::new(2, Some(10 * SECOND));
        assert_eq!(pulse.turned(0, false, 4 * SECOND), None);
        assert_eq!(pulse.turned(1, false, 4 * SECOND), None, "it is not due");
        assert_eq!(pulse.turned(0, false, 5 * SECOND), Some(Event::Alive), "due at half the time");
        for at in 6..100 {
            assert_eq!(pulse.turned(0, false, at * SECOND), None, "thread 1 has not turned");
        }
        assert_eq!(pulse.turned(1, false, 100 * SECOND), Some(Event::Alive));
    }

    #[test]
    fn the_first_thread_that_ends_tells_the_end() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("the path is free");
        let manager = Arc::new(ServiceManager {
            notify_socket: Some(path.into()),
            pulse: Mutex::new(Pulse::new(2, None)),
            clock: SystemClock::default(),
        });
        let [first, second] = [0, 1].map(|thread| Heartbeat { manager: manager.clone(), thread });
        first.beat(true);
        second.beat(true);
        assert_eq!(received(&socket), "READY=1");
        drop(second);
        assert_eq!(received(&socket), "STOPPING=1");
        drop(first);
        socket.set_nonblocking(true).expect("a socket may not block");
        assert!(socket.recv(&mut [0; 1]).is_err(), "it is told once");
    }

    #[test]
    fn a_watchdog_counts_where_this_process_is_meant() {
        let of = |usec: Option<&str>, pid: Option<&str>| watchdog(usec.map(Into::into), pid.map(Into::into), 7);
        assert_eq!(of(Some("360000000"), Some("7")), Some(360 * SECOND));
        assert_eq!(of(Some("360000000"), None), Some(360 * SECOND));
        for (usec, pid) in [(None, Some("7")), (Some("1000000"), Some("8")), (Some("0"), None), (Some("soon"), None)] {
            assert_eq!(of(usec, pid), None, "{usec:?} {pid:?}");
        }
    }
}
