//! Who in the group owns which partition: asked on demand, with a client of its own, and remembered for a moment, so that
//! many who ask cost the brokers no more than one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use processor_core::ids::TopicPartition;

use super::KafkaError;
use super::admin::Admin;
use super::cluster::ClusterSettings;

/// An answer is good for so long; a failure too.
const REMEMBERED: Duration = Duration::from_secs(1);

/// By partition: the client id of its owner.
pub type Owned = BTreeMap<TopicPartition, String>;

/// Knows who owns what.
pub struct Owners {
    settings: ClusterSettings,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    admin: Option<Admin>,
    answer: Option<(Instant, Result<Arc<Owned>, KafkaError>)>,
}

impl Owners {
    /// In the group of these settings. Connects with the first question.
    pub fn new(settings: ClusterSettings) -> Self {
        Self { settings, known: Mutex::default() }
    }

    /// Who owns what, as the group's coordinator says. Waits a little over two seconds for it at the most, and for those who asked before.
    ///
    /// # Errors
    /// The coordinator does not answer, or the right to describe the group is missing.
    pub fn owned(&self) -> Result<Arc<Owned>, KafkaError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, answer)) = &known.answer
            && at.elapsed() < REMEMBERED
        {
            return answer.clone();
        }
        let answer = self.ask(&mut known).map(Arc::new);
        if answer.is_err() {
            known.admin = None; // an answer that comes late would be taken for that to the next question
        }
        known.answer = Some((Instant::now(), answer.clone()));
        answer
    }

    fn ask(&self, known: &mut Known) -> Result<Owned, KafkaError> {
        let admin = match known.admin.take() {
            Some(admin) => admin,
            None => Admin::connect(&self.settings)?,
        };
        known.admin.insert(admin).owners(&self.settings.application_id)
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owners").field(&self.settings.application_id).finish()
    }
}
