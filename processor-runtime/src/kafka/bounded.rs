//! A call that may not come back, made where it holds nobody up.

use std::fmt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// Makes calls on a thread of its own, one at a time, and waits for each only so long. The thread is made with the first
/// call and ends when this is dropped, or, if it is in a call then, behind that call.
pub(super) struct Bounded {
    name: &'static str,
    jobs: Option<Sender<Job>>,
}

impl fmt::Debug for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bounded").field(&self.name).finish()
    }
}

impl Bounded {
    /// `name` is the thread's.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, jobs: None }
    }

    /// Makes a call. `None`: it has not come back in time, and nobody waits for it any more.
    pub(super) fn call<T: Send + 'static>(
        &mut self,
        wait: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = mpsc::channel();
        let job: Job = Box::new(move || {
            // Nobody listens where the call took too long.
            let _ = answer.send(call());
        });
        let jobs = self.jobs.take().map_or_else(|| start(self.name), Some)?;
        jobs.send(job).ok()?;
        let answer = answered.recv_timeout(wait).ok()?;
        self.jobs = Some(jobs);
        Some(answer)
    }
}

fn start(name: &str) -> Option<Sender<Job>> {
    let (jobs, queue): (Sender<Job>, Receiver<Job>) = mpsc::channel();
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || queue.into_iter().for_each(|job| job()));
    thread.ok().map(|_| jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_made_one_after_the_other_on_one_thread() {
        let mut bounded = Bounded::new("test");
        let mut call = || bounded.call(Duration::from_secs(10), || thread::current().id());
        let first = call().expect("it comes back");
        assert_eq!(call(), Some(first));
        assert_ne!(first, thread::current().id());
    }

    #[test]
    fn a_call_that_does_not_come_back_is_left_alone() {
        let mut bounded = Bounded::new("test");
        let (release, held) = mpsc::channel::<()>();
        let (done, ended) = mpsc::channel::<()>();
        let stuck = bounded.call(Duration::from_millis(10), move || {
            let _ = held.recv();
            drop(done);
        });
        assert_eq!(stuck, None);
        assert_eq!(bounded.call(Duration::from_secs(10), || 7), Some(7), "the next call is made elsewhere");
        drop(release);
        assert!(ended.recv().is_err(), "and the one that was stuck comes to its end by itself");
    }
}
