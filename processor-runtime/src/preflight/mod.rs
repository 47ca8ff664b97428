//! The check of the cluster at start: what could lose records or stop the application, why, and how it is mended.
//!
//! It is the runtime's own, and no stable API.
//!
//! [`facts`] asks the cluster, [`findings`](findings::findings) is a pure function of the answers. One finding is one
//! kind of trouble with the names of all topics that have it, so that a small cluster does not drown in lines.
//!
//! It comes before anything is made: a topic that is not there yet is judged by the settings it would be made with.

pub mod facts;
pub mod findings;

use processor_core::topology::ApplicationTopology;

use self::findings::{Severity, findings};
use crate::config::{Config, ConfigError};
use crate::kafka::admin::{Admin, BrokerInfo};

/// Looks at the cluster once, logs what is found, and refuses what cannot work; with `strict` also what is risky.
///
/// # Errors
/// The findings that refuse the start, with the commands that mend them.
pub fn check(
    config: &Config,
    topology: &ApplicationTopology,
    brokers: &[BrokerInfo],
    admin: &Admin,
) -> Result<(), ConfigError> {
    let findings = findings(&facts::gather(config, topology, brokers, admin));
    let stops = |severity| severity == Severity::Broken || (config.strict && severity == Severity::Risk);
    let (refused, told): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| stops(finding.severity));
    for finding in told {
        match finding.severity {
            Severity::Broken | Severity::Risk => tracing::warn!("{finding}"),
            Severity::Note => tracing::info!("{finding}"),
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = refused.iter().map(|finding| format!("\n- {finding}")).collect();
    let strict = if config.strict { " (strict = true: what is risky is refused too)" } else { "" };
    Err(ConfigError(format!("the cluster does not fit{strict}:{}", lines.concat())))
}
