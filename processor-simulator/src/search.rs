//! Many schedules: on all cores, each twice, until one goes wrong or the time is up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::schedule::Ended;

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The first seed.
    pub first: u64,
    /// How many schedules at most.
    pub schedules: u64,
    /// How long at most.
    pub time: Duration,
    /// Whether each runs twice and must come out the same (EO-7).
    pub twice: bool,
    /// Whether to stop at the first that goes wrong.
    pub stop_at_first: bool,
    /// How many threads.
    pub threads: usize,
}

/// A schedule that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wrong {
    /// Its seed.
    pub seed: u64,
    /// What was wrong.
    pub what: String,
}

impl Wrong {
    /// The oracle (O1, O2, ...) or the law (EO-2, ...) that has seen it; none, if the program broke some other way.
    pub fn seen_by(&self) -> Option<&str> {
        let words = self.what.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = |word: &&str| word.strip_prefix("EO-").or_else(|| word.strip_prefix('O')).is_some_and(number);
        words.into_iter().find(is_name)
    }
}

/// Runs schedules and tells `each` what became of them: how many have been run, and what the last one came to.
///
/// Panics of schedules are caught; where they are printed is up to the process's panic hook.
pub fn search(
    search: &Search,
    run: impl Fn(u64) -> Ended + Sync,
    each: impl Fn(u64, &Result<Ended, Wrong>) + Sync,
) -> u64 {
    let (next, done, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let telling = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..search.threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && begun.elapsed() < search.time {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= search.schedules {
                        return;
                    }
                    let outcome = outcome(&run, search.first + number, search.twice);
                    let _one_at_a_time = telling.lock().unwrap_or_else(PoisonError::into_inner);
                    each(done.fetch_add(1, Ordering::Relaxed) + 1, &outcome);
                    if outcome.is_err() && search.stop_at_first {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    done.into_inner()
}

fn outcome(run: impl Fn(u64) -> Ended, seed: u64, twice: bool) -> Result<Ended, Wrong> {
    let once = || {
        // What it leaves half done is its own world, and gone.
        catch_unwind(AssertUnwindSafe(|| run(seed))).map_err(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let what = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            Wrong { seed, what: what.to_owned() }
        })
    };
    let ended = once()?;
    if twice && once()? != ended {
        return Err(Wrong { seed, what: "EO-7: it came out differently the second time".to_owned() });
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_seen_it_is_named() {
        let wrong = |what: &str| Wrong { seed: 1, what: what.to_owned() };
        assert_eq!(wrong("assertion failed: O1: partition 2: outputs").seen_by(), Some("O1"));
        assert_eq!(wrong("EO-11: begins in stage Unanswered").seen_by(), Some("EO-11"));
        assert_eq!(wrong("index OOPS of O out of bounds").seen_by(), None);
    }
}
