//! What is watched from outside while things happen to an application: that its batches appear as a whole (O4) and that
//! its offsets never go back (O3). Either can be broken for a moment and be right again at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Scene;
use crate::client::{ConcurrentReader, Observer};
use crate::oracle::{self, Verdict};

/// How often the offsets are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Fewer looks than this show nothing.
const LOOKS_MIN: u64 = 10;

/// Watches the outputs and the offsets of one application.
#[derive(Debug)]
pub struct Watch {
    reader: ConcurrentReader,
    stop: Arc<AtomicBool>,
    offsets: JoinHandle<Vec<BTreeMap<i32, i64>>>,
}

impl Scene {
    /// Begins to watch.
    pub fn watch(&self) -> Watch {
        let reader = ConcurrentReader::start(&self.bootstrap, &self.output()).expect("the output can be read");
        let (bootstrap, group, topic) = (self.bootstrap.clone(), self.name.clone(), self.input());
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let look = move || look_at_offsets(&bootstrap, &group, &topic, &stopping);
        let offsets = thread::Builder::new().name("oracle-offsets".to_owned()).spawn(look).expect("a thread");
        Watch { reader, stop, offsets }
    }
}

impl Watch {
    /// Requires that nothing was torn and nothing went back, and that the reader has stood at an end behind new records
    /// this often at least: it can have seen a part of a batch only there.
    pub fn finish(self, ends_min: u64) {
        let ends = self.reader.ends();
        self.finish_offsets().assert_ok();
        assert!(ends >= ends_min, "the reader stood at {ends} ends behind new records, {ends_min} were expected");
    }

    /// Ends it; what was found about the batches, which is not expected to be right.
    pub fn finish_torn(self) -> Verdict {
        self.finish_offsets()
    }

    /// Ends it without asking what was found.
    pub fn abandon(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.offsets.join().expect("the thread that looks at the offsets does not panic");
    }

    fn finish_offsets(self) -> Verdict {
        self.stop.store(true, Ordering::SeqCst);
        let seen = self.offsets.join().expect("the thread that looks at the offsets does not panic");
        let monotone = oracle::check_offsets_monotone(&seen);
        monotone.assert_ok();
        assert!(monotone.inputs >= LOOKS_MIN, "the offsets were looked at {} times", monotone.inputs);
        self.reader.finish().expect("the output can be read")
    }
}

/// Looks until it is told to stop, and past brokers that are away.
fn look_at_offsets(bootstrap: &str, group: &str, topic: &str, stop: &AtomicBool) -> Vec<BTreeMap<i32, i64>> {
    let observer = || Observer::new(bootstrap, group).expect("the settings are sound");
    let mut kafka = observer();
    let mut seen = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        match kafka.committed_offsets(topic, false) {
            Ok(offsets) => seen.push(offsets.into_iter().map(|(partition, (offset, _))| (partition, offset)).collect()),
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "looking at offsets");
                kafka = observer();
            }
        }
        thread::sleep(LOOK_EVERY);
    }
    seen
}
