//! `dead-letters`: the records that failed, and how they go back to where they came from.
//!
//! A dead letter that was replayed or discarded stays where it is; beside it, in the same partition, stands a *mark* that
//! names its offset. The mark and the replayed record are of one transaction, so a letter is replayed exactly if its record is back. A
//! mark lies behind its letter in the log, so retention, which cuts logs from the front, never takes a mark before its letter;
//! and it has a key of its own, so compaction keeps it.

mod closing;
mod letter;
mod topic;

use std::io::Write;

use clap::{Args, Subcommand};
use processor_core::ids::Timestamp;
use serde_json::{Value, json};

use self::letter::{Closed, Letter, LetterId};
use self::topic::DeadLetterTopic;
use super::CommandError;
use super::output;
use crate::kafka::cluster::ClusterSettings;

/// How much of an error or a value a table shows, in characters.
const SHOWN_MAX: usize = 120;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists the dead letters that are open.
    #[command(
        after_help = "Example:\n  moving-average dead-letters list --topic averages-failed \\\n      --bootstrap-servers localhost:9092 --application-id averages"
    )]
    List {
        /// The most letters to show; how many more there are is said.
        #[arg(long, default_value_t = 100)]
        limit: u64,
        /// Those that were replayed or discarded, too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Shows all of one dead letter.
    #[command(
        after_help = "Example:\n  moving-average dead-letters show 0:17 --topic averages-failed \\\n      --bootstrap-servers localhost:9092 --application-id averages"
    )]
    Show {
        /// Which one, as `list` names it: <partition>:<offset>.
        letter: LetterId,
        #[command(flatten)]
        options: Options,
    },
    /// Sends records back to the topic and partition that they came from, as they were.
    ///
    /// Each record and the mark that its letter is done are written in one transaction: whatever is killed, whoever else
    /// replays meanwhile, no letter is replayed twice, and none is marked that was not replayed. Letters go in transactions
    /// of at most 500. Of two replays of an application that run at once, the one that was started first stops.
    #[command(
        after_help = "Example:\n  moving-average dead-letters replay --letter 0:17,2:4 --topic averages-failed \\\n      --bootstrap-servers localhost:9092 --application-id averages"
    )]
    Replay(Chosen),
    /// Closes letters whose records nobody will send back: they are not listed any more, and not replayed.
    ///
    /// Each letter stays where it is, and gets a mark beside it.
    #[command(
        after_help = "Example:\n  moving-average dead-letters discard --letter 0:17 --topic averages-failed \\\n      --bootstrap-servers localhost:9092 --application-id averages"
    )]
    Discard(Chosen),
}

/// Which letters.
#[derive(Debug, Args)]
#[group(id = "which", args = ["letters", "all"], required = true, multiple = false)]
pub(crate) struct Chosen {
    /// Which ones, as `list` names them, with commas between.
    #[arg(long = "letter", value_delimiter = ',')]
    letters: Vec<LetterId>,
    /// All that are open.
    #[arg(long)]
    all: bool,
    /// Says what would be done, and writes nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The dead-letter topic.
    #[arg(long)]
    topic: String,
    /// Answers with a JSON document.
    #[arg(long)]
    json: bool,
}

/// Carries it out.
pub(crate) fn run(verb: &Verb, settings: &ClusterSettings, out: &mut impl Write) -> Result<(), CommandError> {
    match verb {
        Verb::List { limit, all, options } => {
            list(&DeadLetterTopic::find(settings, &options.topic)?, *limit, *all, options.json, out)
        }
        Verb::Show { letter, options } => {
            show(&DeadLetterTopic::find(settings, &options.topic)?, letter, options.json, out)
        }
        Verb::Replay(chosen) => close(chosen, Closed::Replayed, settings, out),
        Verb::Discard(chosen) => close(chosen, Closed::Discarded, settings, out),
    }
}

fn close(
    Chosen { letters, all: _, dry_run, options }: &Chosen,
    how: Closed,
    settings: &ClusterSettings,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let topic = DeadLetterTopic::find(settings, &options.topic)?;
    closing::close(&topic, letters, how, *dry_run)?.tell(*dry_run, options.json, out)
}

fn list(
    topic: &DeadLetterTopic,
    limit: u64,
    all: bool,
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let scan = topic.scan()?;
    let (mut shown, mut more): (Vec<(Letter, Option<Closed>)>, u64) = (Vec::new(), 0);
    topic.letters(&scan, |letter| {
        let closed = scan.closed(&letter.id());
        if closed.is_some() && !all {
            return Ok(());
        }
        if (shown.len() as u64) < limit {
            shown.push((letter, closed));
        } else {
            more += 1;
        }
        Ok(())
    })?;
    if as_json {
        let letters: Vec<Value> = shown.iter().map(|(letter, closed)| summary(letter, *closed)).collect();
        return output::json(
            out,
            &json!({ "topic": &**topic.name(), "letters": letters, "more": more, "others": scan.others() }),
        );
    }
    let row = |(letter, closed): &(Letter, Option<Closed>)| {
        vec![
            letter.id().to_string(),
            letter.timestamp().map_or_else(|| "-".to_owned(), output::moment),
            format!("{}@{}", letter.origin, letter.offset),
            letter.node.clone(),
            letter.kind.clone(),
            state(*closed).to_owned(),
            output::shortened(&output::text(letter.error.as_bytes()), SHOWN_MAX),
        ]
    };
    output::table(out, &["LETTER", "TIME", "FROM", "NODE", "KIND", "STATE", "ERROR"], shown.iter().map(row).collect())?;
    if more > 0 {
        writeln!(out, "and {more} more; see them with a higher --limit")?;
    }
    if scan.others() > 0 {
        writeln!(out, "{} records of the topic are no dead letters", scan.others())?;
    }
    Ok(())
}

fn state(closed: Option<Closed>) -> &'static str {
    closed.map_or("open", Closed::word)
}

fn summary(letter: &Letter, closed: Option<Closed>) -> Value {
    json!({
        "letter": letter.id().to_string(), "timestamp_ms": letter.timestamp().map(Timestamp::get), "topic": &*letter.origin.topic,
        "partition": letter.origin.partition.get(), "offset": letter.offset.get(), "task": letter.task, "node": letter.node,
        "kind": letter.kind, "error": letter.error, "state": state(closed),
    })
}

fn show(topic: &DeadLetterTopic, id: &LetterId, as_json: bool, out: &mut impl Write) -> Result<(), CommandError> {
    let scan = topic.scan()?;
    let letter = topic.letter(id)?;
    let closed = scan.closed(id);
    if as_json {
        let bytes = |bytes: Option<&[u8]>| {
            bytes.map(|bytes| match std::str::from_utf8(bytes) {
                Ok(text) => json!(text),
                Err(_) => json!({ "bytes": bytes.escape_ascii().to_string() }),
            })
        };
        let headers = letter.headers();
        let headers: Vec<Value> = headers.iter().map(|(name, value)| json!([name, bytes(value.as_deref())])).collect();
        let mut document = summary(&letter, closed);
        document["key"] = json!(bytes(letter.key()));
        document["value"] = json!(bytes(letter.value()));
        document["headers"] = json!(headers);
        return output::json(out, &document);
    }
    let bytes = |bytes: Option<&[u8]>| bytes.map_or_else(|| "(null)".to_owned(), output::text);
    let mut rows = vec![
        ("letter", id.to_string()),
        ("state", state(closed).to_owned()),
        ("from", format!("{}@{}", letter.origin, letter.offset)),
        ("time", letter.timestamp().map_or_else(|| "-".to_owned(), output::moment)),
        ("task", letter.task.clone()),
        ("node", letter.node.clone()),
        ("kind", letter.kind.clone()),
        ("error", output::text(letter.error.as_bytes())),
        ("key", bytes(letter.key())),
        ("value", bytes(letter.value())),
    ];
    for (name, value) in letter.headers() {
        rows.push(("header", format!("{} = {}", output::text(name.as_bytes()), bytes(value.as_deref()))));
    }
    Ok(output::table(out, &["", ""], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect())?)
}
