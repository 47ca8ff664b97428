//! One late request, forced.
//!
//! Everything is done by rules of the proxies that wait for each other, so that what must come first has come first:
//!
//! 1. The request is held; the client gives it up and sends a copy, which is served.
//! 2. The transaction ends. What is seen of the next one, or of the next producer, is behind that. The next one is that of
//!    the same transactional id: a thread has two producers, which work in turn.
//! 3. At the release point the worker's next request is held too, for as long as the late copy needs to arrive and to
//!    be answered. Nothing of the worker overtakes it.

use std::sync::Arc;
use std::time::Duration;

use super::matrix::{Case, Gate, LateRequest, Point};
use crate::proxy::{ApiKey, Fault, Injection, Proxies, Response, Rule};

/// How long any of the steps may take: a time-out of the worker's client, its new connection, a transaction.
const STEP: Duration = Duration::from_secs(15);
/// `UNKNOWN_SERVER_ERROR`, to which librdkafka answers with an abort.
const UNKNOWN_SERVER_ERROR: i16 = -1;
/// Lets a request pass, and says that it was there.
const SEEN: Fault = Fault::Delay(Duration::ZERO);

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The late copy arrived where it should.
    Forced {
        /// The broker's code for it; of records that for the first partition. `None` if it cannot be read.
        answer: Option<i16>,
        /// What is wrong already, whatever the oracles find.
        wrong: Option<String>,
    },
    /// It did not, and why.
    NotRun(String),
}

/// Forces a case on the worker whose client id contains `client`, while it reads a steady input.
///
/// What follows is called before the worker begins another transaction: whatever the late copy has done is done then, and
/// nothing of the worker covers it.
pub fn force(
    proxies: &Proxies,
    client: &str,
    case: Case,
    with_rule: bool,
    follows: Option<&mut dyn FnMut()>,
) -> Outcome {
    let mut staging = Staging { proxies, client, injections: Vec::new() };
    let outcome = staging.force(case, with_rule, follows);
    staging.injections.iter().for_each(|injection| proxies.withdraw(injection));
    outcome.unwrap_or_else(Outcome::NotRun)
}

struct Staging<'a> {
    proxies: &'a Proxies,
    client: &'a str,
    injections: Vec<Arc<Injection>>,
}

impl Staging<'_> {
    fn force(&mut self, case: Case, with_rule: bool, follows: Option<&mut dyn FnMut()>) -> Result<Outcome, String> {
        let late = self.hit(case, with_rule);
        let over = self.over(case, &late);
        let replaced = self.inject(after(&over, Rule::new(ApiKey::INIT_PRODUCER_ID, SEEN)));
        let gate = self.gate(case, with_rule, &late, &over, &replaced);
        let copy = gate.clone().with_fault(SEEN);
        let gate = self.inject(gate);
        let copy = self.inject(after(&gate, copy));

        fired(&late, "the request to be late was not sent")?;
        fired(&gate, "the release point was not reached")?;
        if late.answer().is_some() {
            return Err("the request was answered before it was released".to_owned());
        }
        late.release();
        let answer = late.wait_answer(STEP).ok_or("the late copy was not answered")?;
        if gate.answer().is_some() || copy.fired() {
            return Err("the release point was over before the late copy was answered".to_owned());
        }
        // It has seen what it was for, and would take the next request of its kind.
        self.proxies.withdraw(&copy);
        let Some(follows) = follows else {
            gate.release();
            return Ok(forced(case, with_rule, replaced.fired(), &answer));
        };
        let next = self.inject(answered(&gate, Rule::new(ApiKey::ADD_PARTITIONS_TO_TXN, Fault::HoldAndTimeout)));
        gate.release();
        fired(&next, "no other transaction began")?;
        follows();
        Ok(forced(case, with_rule, replaced.fired(), &answer))
    }

    fn inject(&mut self, rule: Rule) -> Arc<Injection> {
        let injection = self.proxies.inject(rule.client_id_contains(self.client));
        self.injections.push(Arc::clone(&injection));
        injection
    }

    /// The request that will be late.
    fn hit(&mut self, case: Case, with_rule: bool) -> Arc<Injection> {
        let rule = case.request.rule(case.failure.fault());
        let failing = Rule::new(ApiKey::ADD_OFFSETS_TO_TXN, Fault::AnswerError(UNKNOWN_SERVER_ERROR));
        match (case.request, case.aborts(with_rule)) {
            (LateRequest::Abort, _) => {
                let failed = self.inject(failing.nth(case.nth()));
                self.inject(after(&failed, rule))
            }
            (_, true) => {
                let late = self.inject(rule.nth(case.nth()));
                self.inject(after(&late, failing));
                late
            }
            (_, false) => self.inject(rule.nth(case.nth())),
        }
    }

    /// Fires when the transaction that was hit ends.
    fn over(&mut self, case: Case, late: &Arc<Injection>) -> Arc<Injection> {
        if case.request.ends() { Arc::clone(late) } else { self.inject(after(late, Rule::new(ApiKey::END_TXN, SEEN))) }
    }

    /// The request of the worker that is held when the late copy arrives.
    fn gate(
        &mut self,
        case: Case,
        with_rule: bool,
        late: &Arc<Injection>,
        over: &Arc<Injection>,
        replaced: &Arc<Injection>,
    ) -> Rule {
        let held = |api_key| Rule::new(api_key, Fault::HoldAndTimeout);
        match case.point {
            Point::BeforeRebuild if with_rule => {
                // The rule that only sees the new producer is older, and would take the request.
                self.proxies.withdraw(replaced);
                after(over, held(ApiKey::INIT_PRODUCER_ID))
            }
            Point::BeforeRebuild => of_same_producer(late, after(over, held(ApiKey::ADD_PARTITIONS_TO_TXN))),
            Point::AfterRebuild => answered(replaced, held(ApiKey::ADD_PARTITIONS_TO_TXN)),
            Point::NextTransaction => {
                let begins = of_same_producer(late, Rule::new(ApiKey::ADD_PARTITIONS_TO_TXN, SEEN));
                let open = self.inject(after(over, begins));
                match case.gate() {
                    Gate::AddOffsets => after(&open, held(ApiKey::ADD_OFFSETS_TO_TXN)),
                    Gate::Offsets => after(&open, held(ApiKey::TXN_OFFSET_COMMIT)),
                    Gate::Commit => after(&open, Rule::end_txn(true, Fault::HoldAndTimeout)),
                    Gate::Abort => {
                        let failing = Rule::new(ApiKey::ADD_OFFSETS_TO_TXN, Fault::AnswerError(UNKNOWN_SERVER_ERROR));
                        let failed = self.inject(after(&open, failing));
                        after(&failed, Rule::end_txn(false, Fault::HoldAndTimeout))
                    }
                }
            }
        }
    }
}

/// Picks requests that come when the other fault has happened.
fn after(other: &Arc<Injection>, rule: Rule) -> Rule {
    let other = Arc::clone(other);
    rule.when(move |_| other.fired())
}

/// Picks requests that name the transactional id of the other one.
fn of_same_producer(other: &Arc<Injection>, rule: Rule) -> Rule {
    let other = Arc::clone(other);
    rule.when(move |request| request.transactional_id() == other.transactional_id())
}

/// Picks requests that come when the other one is answered.
fn answered(other: &Arc<Injection>, rule: Rule) -> Rule {
    let other = Arc::clone(other);
    rule.when(move |_| other.answer().is_some())
}

fn fired(injection: &Injection, otherwise: &str) -> Result<(), String> {
    if injection.wait_fired(STEP) { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn forced(case: Case, with_rule: bool, replaced: bool, answer: &Response) -> Outcome {
    let answer = answer.error_code();
    Outcome::Forced { answer, wrong: with_rule.then(|| wrong(case, replaced, answer)).flatten() }
}

/// What the answer says against the rule: the late copy meets another producer, in whose place the broker refuses it.
fn wrong(case: Case, replaced: bool, answer: Option<i16>) -> Option<String> {
    let rebuilt = case.request.taints() || case.aborts(true);
    if case.point == Point::BeforeRebuild || !rebuilt {
        return None;
    }
    if !replaced {
        return Some("EO-11: the producer was not replaced".to_owned());
    }
    (answer == Some(0)).then(|| format!("the broker granted the late {} to another producer", case.request))
}
