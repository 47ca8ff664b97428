//! `topology`: what an application is made of, without running it.

use std::ffi::OsString;
use std::io::Write;

use clap::{Args, ValueEnum};
use processor_core::topology::Topology;

use super::CommandError;

/// The arguments of `topology`.
#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    /// The form.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The application's own arguments; what is not given is stood in for.
    #[arg(last = true, value_name = "OWN ARGUMENTS")]
    own: Vec<OsString>,
}

impl TopologyArgs {
    /// The application's own arguments, as far as they were given.
    pub(crate) fn own(&self) -> &[OsString] {
        &self.own
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// As Kafka Streams describes topologies, for people and for the tools that draw them.
    Text,
    /// A Mermaid flowchart, which code hosts draw in documents.
    Mermaid,
    /// A graph for Graphviz.
    Dot,
}

/// Answers.
pub(crate) fn run(args: &TopologyArgs, topology: &Topology, out: &mut impl Write) -> Result<(), CommandError> {
    let text = match args.format {
        Format::Text => topology.describe(),
        Format::Mermaid => topology.describe_mermaid(),
        Format::Dot => topology.describe_dot(),
    };
    Ok(writeln!(out, "{}", text.trim_end())?)
}
