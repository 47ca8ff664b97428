//! Records that are produced in the background while things happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::Scene;
use crate::client::Workload;
use crate::oracle;

/// Records that are produced in the background.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    /// How many had been produced before it began.
    first: u64,
    thread: Option<JoinHandle<u64>>,
}

impl Scene {
    /// Produces so many records a second, in the background, until it is told to finish.
    pub fn load(&self, rate: u64) -> Load {
        let (bootstrap, stop, first) = (self.bootstrap.clone(), Arc::new(AtomicBool::new(false)), self.produced);
        let mut workload = Workload { rate: Some(rate), ..self.workload(rate) };
        let (stopped, send) = (stop.clone(), self.subject.produce);
        let produce = move || {
            let mut produced = 0;
            while !stopped.load(Ordering::SeqCst) {
                send(&bootstrap, &workload).expect("the broker takes records");
                produced += workload.count;
                workload.seed += workload.count;
                workload.base_timestamp += workload.count as i64;
            }
            produced
        };
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(produce).expect("a thread");
        Load { stop, first, thread: Some(thread) }
    }

    /// From now on, what is in the input counts as produced: where brokers fail, that may be more than they have
    /// acknowledged.
    ///
    /// # Panics
    /// If it is less, or if what is more is not there twice.
    pub fn count_input(&mut self) {
        let verdict = oracle::check_input(&self.read(&self.input()), self.produced);
        assert!(verdict.is_ok(), "{}: {verdict}", self.input());
        self.produced = verdict.outputs;
    }
}

impl Load {
    /// Ends it, and counts what it has produced.
    pub fn finish(mut self, scene: &mut Scene) {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("finish consumes the load, so its thread is taken once");
        assert_eq!(scene.produced, self.first, "nothing else is produced meanwhile");
        scene.produced += thread.join().expect("the load was produced");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
