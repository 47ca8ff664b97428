//! What a consumer says that passes by itself: logged so that a silent wait has a visible reason, and not at every turn.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::ffi::{Client, Message};

/// The same words are not said again for so long.
const QUIET: Duration = Duration::from_secs(30);
/// How many kinds of messages are remembered.
const KINDS_MAX: usize = 64;

/// When each kind of message, by code and partition, was last logged.
#[derive(Debug, Default)]
pub(super) struct Transient(HashMap<(i32, Option<String>, i32), Instant>);

impl Transient {
    /// Logs a message, unless it was lately.
    pub(super) fn log(&mut self, client: &Client, message: &Message) {
        let (topic, partition) = (message.topic(), message.partition());
        if !self.is_news((message.code().0, topic.clone(), partition), Instant::now()) {
            return;
        }
        let (text, code) = (message.error_text(), message.code());
        if let Some(topic) = topic {
            tracing::warn!(?client, "{topic}-{partition}: {text} ({code}); it is tried again");
        } else {
            tracing::info!(?client, "{text} ({code})");
        }
    }

    fn is_news(&mut self, kind: (i32, Option<String>, i32), now: Instant) -> bool {
        if self.0.len() >= KINDS_MAX {
            self.0.retain(|_, said| now.duration_since(*said) < QUIET);
        }
        let room = self.0.len() < KINDS_MAX;
        let news = self.0.get(&kind).is_none_or(|said| now.duration_since(*said) >= QUIET);
        if news && room {
            self.0.insert(kind, now);
        }
        news && room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_said_once_in_a_while() {
        let mut transient = Transient::default();
        let now = Instant::now();
        let kind = |partition| (-195, Some("in".to_owned()), partition);
        assert!(transient.is_news(kind(0), now));
        assert!(!transient.is_news(kind(0), now + QUIET / 2));
        assert!(transient.is_news(kind(1), now + QUIET / 2), "another partition is other news");
        assert!(transient.is_news(kind(0), now + QUIET));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut transient = Transient::default();
        let now = Instant::now();
        for code in 0..1_000 {
            transient.is_news((code, None, -1), now);
        }
        assert_eq!(transient.0.len(), KINDS_MAX);
        assert!(transient.is_news((-1, None, -1), now + QUIET), "room is made by what is over");
    }
}
