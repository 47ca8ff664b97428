//! `topology`: what an application is made of, without running it.

use std::io::Write;

use clap::{Args, ValueEnum};
use processor_core::topology::Topology;

use super::CommandError;

/// The arguments of `topology` beside the application's own.
#[derive(Debug, Args)]
pub(crate) struct TopologyOptions {
    /// The form.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
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
pub(crate) fn run(topology: &Topology, options: &TopologyOptions, out: &mut impl Write) -> Result<(), CommandError> {
    let text = match options.format {
        Format::Text => topology.describe(),
        Format::Mermaid => topology.describe_mermaid(),
        Format::Dot => topology.describe_dot(),
    };
    Ok(writeln!(out, "{}", text.trim_end())?)
}
