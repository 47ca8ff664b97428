//! An application in a thread of the test: for topologies that no program of the workspace has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use processor_core::topology::Topology;
use processor_runtime::app::{self, AppError};
use processor_runtime::config::Config;

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
