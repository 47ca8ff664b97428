//! An application in a thread of the test: for topologies that no program of the workspace has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use processor_core::topology::Topology;
use processor_runtime::app::{self, AppError};
use processor_runtime::config::Config;

use crate::client::Observer;
use crate::scene::PATIENCE;
use crate::worker::await_condition;

/// An application that runs until it is told to stop.
#[derive(Debug)]
pub struct Application {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), AppError>>>,
}

impl Application {
    /// Starts it; what is wrong shows when it is stopped.
    pub fn start(config: Config, topology: Topology) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || app::run(&config, &topology, &stopped));
        Self { stop, thread: Some(thread) }
    }

    /// A clean stop.
    ///
    /// # Panics
    /// If it has ended with an error, or a law of the engine was broken.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().expect("no law is broken").expect("a clean stop");
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Waits until so many committed records are in a topic.
///
/// # Panics
/// If that takes too long.
pub fn await_outputs(observer: &Observer, topic: &str, count: usize) {
    let visible = || {
        let logs = observer.read_committed_so_far(topic)?;
        Ok::<_, anyhow::Error>(logs.iter().map(|log| log.records.len()).sum::<usize>())
    };
    let all = await_condition("the outputs", PATIENCE, || Ok(visible().is_ok_and(|seen| seen >= count)));
    all.unwrap_or_else(|error| panic!("{error:#}: {:?} of {count}", visible()));
}
