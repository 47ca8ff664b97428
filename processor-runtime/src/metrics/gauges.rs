//! The gauges of one scrape: made for it from what is there, and dropped with it.

use metrics::Recorder;
use metrics_exporter_prometheus::PrometheusRecorder;

use super::definitions::{Definition, Kind};

/// The gauges of one scrape.
#[derive(Debug)]
pub struct Gauges(PrometheusRecorder);

impl Default for Gauges {
    fn default() -> Self {
        Self(super::recorder())
    }
}

impl Gauges {
    /// Sets a gauge; the values of its labels are in the order of its definition.
    ///
    /// # Panics
    /// If the definition is of another kind, or has other labels.
    pub fn set(&self, definition: &Definition, labels: &[&str], value: f64) {
        assert!(definition.kind == Kind::Gauge, "{} is no gauge", definition.name);
        self.0.register_gauge(&super::key(definition, labels), &super::ORIGIN).set(value);
    }

    pub(super) fn render(&self) -> String {
        self.0.handle().render()
    }
}
