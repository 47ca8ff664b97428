//! `reset`: makes an application begin anew, as if it had never run.
//!
//! What has to go lies in several places and cannot go at once: internal topics, the state on disk, the committed offsets.
//! A start in between would take stale state, or skip input. So the first step bars the application: its offsets get
//! metadata that no worker reads, and a worker that meets such metadata stops. The last step removes the offsets, and with
//! them the bar, all at once. A reset that was cut short is finished by another one; until then nothing starts.
//!
//! 1. **bar** the group;
//! 2. delete the topics that the application made for itself;
//! 3. remove the state on this machine;
//! 4. **forget** all offsets, together.
//!
//! State on other machines is told by the id of its changelog topic, which is then another one: a worker wipes it.

use std::io::{BufRead as _, IsTerminal as _, Write, stdin};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use processor_core::ids::{Offset, Partition, TopicPartition};
use processor_core::topology::{ApplicationTopology, Topology};
use serde_json::json;

use super::CommandError;
use super::output;
use crate::config::{Config, changelog_topics};
use crate::kafka::Committed;
use crate::kafka::admin::Admin;
use crate::state::LocalState;

/// The metadata of barred offsets: what a worker cannot read it shows, so it says what to do.
const BAR: &str = "a reset was begun: run `reset` again to finish it";
/// How long a transaction of a worker that was killed is waited for: the default time-out of one, and the brokers' interval
/// of looking for such.
const OPEN_TRANSACTION_WAIT_MAX: Duration = Duration::from_secs(30);
const OPEN_TRANSACTION_POLL: Duration = Duration::from_millis(200);

/// The arguments of `reset` beside those of `run`.
#[derive(Debug, Args)]
pub(crate) struct ResetOptions {
    /// Says what would go, and changes nothing; also while workers run.
    #[arg(long)]
    dry_run: bool,
    /// Does not ask.
    #[arg(long)]
    yes: bool,
    /// Answers with a JSON document.
    #[arg(long)]
    json: bool,
}

/// What is done, in this order.
#[derive(Debug)]
enum Step {
    /// Keeps workers out until the last step: sets these offsets, with metadata that no worker reads.
    Bar(Vec<(TopicPartition, Offset)>),
    /// Deletes an internal topic.
    DeleteTopic(Arc<str>),
    /// Removes the state on this machine.
    RemoveState(LocalState),
    /// Deletes the group, and so all its offsets at once.
    Forget,
}

/// Resets.
pub(crate) fn run(
    config: &Config,
    topology: &Topology,
    options: &ResetOptions,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    config.check(topology).map_err(|error| CommandError::Misused(error.0))?;
    let topology = topology.for_application(&config.application_id);
    let topology = &topology.map_err(|error| CommandError::Misused(error.to_string()))?;
    let admin = Admin::connect(&config.cluster_settings())?;
    let members = admin.members(&config.application_id)?;
    let held = match refusal(config, &members) {
        Some(refusal) => Err(CommandError::Failed(refusal)),
        None => LocalState::hold(&config.state_dir, &config.application_id).map_err(CommandError::from),
    };
    let (state, refused) = match held {
        Ok(state) => (state, None),
        Err(refusal) if options.dry_run => {
            (LocalState::look(&config.state_dir, &config.application_id)?, Some(refusal.to_string()))
        }
        Err(refusal) => return Err(refusal),
    };
    let steps = plan(config, topology, &admin, state)?;
    let shown: Vec<_> = steps.iter().map(|step| step.told(config)).collect();
    if !options.json {
        output::table(
            out,
            &["STEP", "WHAT"],
            shown.iter().map(|(step, what)| vec![(*step).to_owned(), what.clone()]).collect(),
        )?;
        out.flush()?;
    }
    if !options.dry_run {
        if !options.yes {
            ask(config)?;
        }
        await_stable(config, topology, &admin)?;
        steps.into_iter().try_for_each(|step| step.take(config, &admin))?;
    }
    if options.json {
        let steps: Vec<_> = shown.iter().map(|(step, what)| json!({ "step": step, "what": what })).collect();
        return output::json(
            out,
            &json!({
                "application_id": config.application_id, "done": !options.dry_run, "steps": steps, "members": members,
                "refused": refused,
            }),
        );
    }
    match refused {
        None if options.dry_run => writeln!(out, "nothing was changed")?,
        Some(why) => writeln!(out, "nothing was changed, and now nothing could be: {why}")?,
        None => {
            writeln!(out, "done: the next `run` begins anew")?;
            tell_what_stays(topology, out)?;
        }
    }
    Ok(())
}

fn tell_what_stays(topology: &ApplicationTopology, out: &mut impl Write) -> Result<(), CommandError> {
    let letters = topology.dead_letter_topics().into_iter().collect::<Vec<_>>().join(", ");
    if !letters.is_empty() {
        writeln!(
            out,
            "dead letters stay ({letters}), and so do records in the inputs that were replayed: what fails again is a second letter of the \
             same record, and a record that was replayed is there twice. See \"When a record fails\" in docs/operating.md"
        )?;
    }
    Ok(())
}

/// Why there is no reset while the group has members. The broker refuses it too, should one join in between.
fn refusal(config: &Config, members: &[String]) -> Option<String> {
    let (id, names) = (&config.application_id, members.join(", "));
    (!members.is_empty()).then(|| {
        format!(
            "the application '{id}' runs, as {names}: stop its workers first; one that was killed, or that has an instance.id and \
             was stopped without `leave`, counts until its session times out"
        )
    })
}

fn plan(
    config: &Config,
    topology: &ApplicationTopology,
    admin: &Admin,
    state: Option<LocalState>,
) -> Result<Vec<Step>, CommandError> {
    let offsets = committed_inputs(config, topology, admin, false)?.into_iter().map(|(partition, committed)| {
        let offset = match committed {
            Committed::At { offset, .. } => offset,
            Committed::Nothing | Committed::Unstable => Offset::new(0),
        };
        (partition, offset)
    });
    let mut topics = Vec::new();
    for topic in internal_topics(config, topology) {
        if admin.topic_shape(&topic)?.is_some() {
            topics.push(topic);
        }
    }
    Ok(ordered(offsets.collect(), topics, state))
}

/// The order that lets no crash leave something that starts and is wrong.
fn ordered(offsets: Vec<(TopicPartition, Offset)>, topics: Vec<Arc<str>>, state: Option<LocalState>) -> Vec<Step> {
    let bar = (!offsets.is_empty()).then_some(Step::Bar(offsets));
    let topics = topics.into_iter().map(Step::DeleteTopic);
    bar.into_iter().chain(topics).chain(state.map(Step::RemoveState)).chain([Step::Forget]).collect()
}

/// The topics that the application made for itself.
fn internal_topics(config: &Config, topology: &ApplicationTopology) -> Vec<Arc<str>> {
    let between = topology.internal_topics().iter().map(|internal| internal.topic.clone());
    between.chain(changelog_topics(&config.application_id, topology)).collect()
}

fn committed_inputs(
    config: &Config,
    topology: &ApplicationTopology,
    admin: &Admin,
    stable: bool,
) -> Result<Vec<(TopicPartition, Committed)>, CommandError> {
    let mut partitions = Vec::new();
    for input in topology.inputs() {
        let count = admin.topic_shape(input)?.map_or(0, |topic| topic.partitions);
        let count = i32::try_from(count).expect("partitions are numbered with 31 bits");
        partitions.extend((0..count).map(|number| TopicPartition::new(input.clone(), Partition::new(number))));
    }
    if partitions.is_empty() {
        Ok(Vec::new())
    } else {
        Ok(admin.committed(&config.application_id, &partitions, stable)?)
    }
}

/// A worker that was killed or has lost its place may have sent offsets in a transaction that is still open: were it to
/// commit, they would replace the bar.
fn await_stable(config: &Config, topology: &ApplicationTopology, admin: &Admin) -> Result<(), CommandError> {
    let deadline = Instant::now() + OPEN_TRANSACTION_WAIT_MAX;
    loop {
        let committed = committed_inputs(config, topology, admin, true)?;
        let Some((partition, _)) = committed.iter().find(|(_, committed)| *committed == Committed::Unstable) else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            return Err(CommandError::Failed(format!(
                "a transaction that holds an offset of {partition} is still open, of a worker that was killed: it ends with its time-out \
                 (transaction.timeout.ms); try again then. Nothing was changed"
            )));
        }
        thread::sleep(OPEN_TRANSACTION_POLL);
    }
}

fn ask(config: &Config) -> Result<(), CommandError> {
    let id = &config.application_id;
    if !stdin().is_terminal() {
        return Err(CommandError::Misused(
            "all of this is lost for good: add --yes to do it, or --dry-run not to".to_owned(),
        ));
    }
    // The question is no part of the answer.
    let _ = write!(std::io::stderr(), "all of this is lost for good. Type the application's id to go on: ");
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    if answer.trim() == id { Ok(()) } else { Err(CommandError::Failed("nothing was changed".to_owned())) }
}

impl Step {
    /// What it is called, and what it does.
    fn told(&self, config: &Config) -> (&'static str, String) {
        match self {
            Self::Bar(offsets) => ("bar", format!("no worker starts until all is done ({} partitions)", offsets.len())),
            Self::DeleteTopic(topic) => ("delete topic", topic.to_string()),
            Self::RemoveState(state) => {
                let tasks = state.tasks();
                let tasks = if tasks.is_empty() { "no task".to_owned() } else { tasks.join(", ") };
                ("remove state", format!("{} ({tasks})", state.directory().display()))
            }
            Self::Forget => ("forget offsets", format!("all that group '{}' has committed", config.application_id)),
        }
    }

    fn take(self, config: &Config, admin: &Admin) -> Result<(), CommandError> {
        let name = self.told(config).0;
        let taken = match self {
            Self::Bar(offsets) => admin.set_offsets(&config.application_id, &offsets, BAR).map_err(CommandError::from),
            Self::DeleteTopic(topic) => admin.delete_topic(&topic).map_err(CommandError::from),
            Self::RemoveState(state) => state.remove().map_err(CommandError::from),
            Self::Forget => admin.delete_group(&config.application_id).map_err(CommandError::from),
        };
        taken.map_err(|error| {
            CommandError::Failed(format!("{name}: {error}; mend that, and run `reset` again to finish it"))
        })
    }
}

#[cfg(test)]
mod tests {
    use processor_core::protocol::metadata::{METADATA_BYTES_MAX, OffsetMetadata};

    use super::*;

    #[test]
    fn nothing_goes_before_the_bar_and_the_bar_goes_last() {
        let offsets = vec![(TopicPartition::new("in", Partition::new(0)), Offset::new(7))];
        let steps = ordered(offsets, vec!["a-s-changelog".into(), "a-t-changelog".into()], None);
        assert!(matches!(steps.first(), Some(Step::Bar(_))));
        assert!(matches!(steps.last(), Some(Step::Forget)));
        let inside = &steps[1..steps.len() - 1];
        assert!(inside.len() == 2 && inside.iter().all(|step| matches!(step, Step::DeleteTopic(_))), "{steps:?}");
    }

    #[test]
    fn no_worker_reads_the_bar_and_its_refusal_says_what_to_do() {
        let error = OffsetMetadata::parse(BAR).expect_err("it is no metadata of a worker");
        assert!(error.to_string().contains("run `reset` again"), "{error}");
        assert!(BAR.len() <= METADATA_BYTES_MAX);
    }
}
