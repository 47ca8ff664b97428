//! What a worker measures of itself, for Prometheus.
//!
//! The runtime measures where [`Config::http_listen`](crate::config::Config::http_listen) is set, and shows it at
//! `/metrics`. The names and meanings in [`definitions`] are what to rely on; the rest is the engine's own, and not
//! shown here.
//!
//! Counters and histograms are made once, with the thread that records in them, and kept: recording is an atomic addition,
//! once a turn. Gauges are not kept at all. Each scrape makes them anew from what is there, so a series whose task,
//! partition or store has gone is gone too; an idle time-out would also take away what is still there and did not change.
//!
//! Nothing global: two applications in one process have metrics of their own.

pub mod definitions;
mod gauges;
mod thread;

#[doc(hidden)]
pub use gauges::Gauges;
#[doc(hidden)]
pub use thread::{CommitResult, Phase, ThreadMetrics};

use std::sync::Arc;

use metrics::{Counter, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use self::definitions::{Definition, Kind};

/// The counters and histograms of a worker. Clones are the same.
///
/// ```
/// use processor_runtime::metrics::{Gauges, Metrics};
///
/// let metrics = Metrics::on();
/// metrics.invariant_violated();
/// let page = metrics.render(&Gauges::default());
/// assert!(page.contains("processor_invariant_violations_total 1"), "{page}");
/// ```
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Metrics(Option<Arc<PrometheusRecorder>>);

impl Metrics {
    /// Measures. Somebody must call [`Metrics::upkeep`] every few seconds.
    pub fn on() -> Self {
        let metrics = Self(Some(Arc::new(recorder())));
        drop(metrics.counter(&definitions::INVARIANT_VIOLATIONS, &[]));
        metrics
    }

    /// Measures nothing, and costs nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Whether it measures.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The handles of a stream thread with this number.
    pub fn thread(&self, number: usize) -> ThreadMetrics {
        ThreadMetrics::new(self.clone(), number)
    }

    /// Counts what keeps the operators of the thread with this number for long.
    pub fn slow_records(&self, thread: usize) -> Counter {
        self.counter(&definitions::SLOW_RECORDS, &[&thread.to_string()])
    }

    /// Counts a thread that stopped because a law was broken.
    pub fn invariant_violated(&self) {
        self.counter(&definitions::INVARIANT_VIOLATIONS, &[]).increment(1);
    }

    /// Everything in Prometheus' text format, with the gauges of this moment.
    pub fn render(&self, gauges: &Gauges) -> String {
        let kept = self.handle().map(|handle| handle.render()).unwrap_or_default();
        kept + &gauges.render()
    }

    /// Sorts the latest observations into their buckets, so that they do not pile up between scrapes.
    pub fn upkeep(&self) {
        if let Some(handle) = self.handle() {
            handle.run_upkeep();
        }
    }

    fn handle(&self) -> Option<PrometheusHandle> {
        self.0.as_ref().map(|recorder| recorder.handle())
    }

    fn counter(&self, definition: &Definition, labels: &[&str]) -> Counter {
        assert!(definition.kind == Kind::Counter, "{} is no counter", definition.name);
        let Some(recorder) = &self.0 else { return Counter::noop() };
        recorder.register_counter(&key(definition, labels), &ORIGIN)
    }

    fn histogram(&self, definition: &Definition, labels: &[&str]) -> Histogram {
        assert!(matches!(definition.kind, Kind::Histogram(_)), "{} is no histogram", definition.name);
        let Some(recorder) = &self.0 else { return Histogram::noop() };
        recorder.register_histogram(&key(definition, labels), &ORIGIN)
    }
}

const ORIGIN: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// A series of a metric: the labels in the order of its definition.
fn key(definition: &Definition, values: &[&str]) -> Key {
    assert!(definition.labels.len() == values.len(), "{} has other labels", definition.name);
    let labels = definition.labels.iter().zip(values).map(|(&label, value)| Label::new(label, (*value).to_owned()));
    Key::from_parts(definition.name, labels.collect::<Vec<_>>())
}

/// A recorder that knows what every metric means and how its observations are counted.
fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for definition in definitions::ALL {
        if let Kind::Histogram(bounds) = definition.kind {
            let of = Matcher::Full(definition.name.to_owned());
            builder = builder.set_buckets_for_metric(of, bounds).expect("a histogram has bounds");
        }
    }
    let recorder = builder.build_recorder();
    for definition in definitions::ALL {
        let (name, meaning) = (definition.name.into(), definition.meaning.into());
        match definition.kind {
            Kind::Counter => recorder.describe_counter(name, None, meaning),
            Kind::Gauge => recorder.describe_gauge(name, None, meaning),
            Kind::Histogram(_) => recorder.describe_histogram(name, None, meaning),
        }
    }
    recorder
}

#[cfg(test)]
mod tests;
