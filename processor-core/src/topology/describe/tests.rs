//! Descriptions, to the byte: tools read them.

use crate::prelude::*;

const COUNTS: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("counts");

fn topology() -> Topology {
    let mut topology = Topology::builder();
    let lines = topology.source("lines", "lines", (Utf8, Utf8));
    let extra = topology.source("extra", ["late", "later"], (Utf8, Utf8));
    let words = lines.merge(&extra);
    words
        .repartition("by-word", |line| line.value.clone(), (Utf8, Utf8))
        .each("count", |record, ctx| {
            let count = ctx.store(&COUNTS).update(&record.key, |count| {
                *count += 1;
                *count
            })?;
            ctx.forward(Record::new(record.key, count.to_string(), record.timestamp))
        })
        .with_store(&COUNTS)
        .sink("counts-out", "counts", (Utf8, Utf8));
    topology.build().expect("the topology is right")
}

#[test]
fn text_is_what_kafka_streams_prints() {
    let expected = "\
Topologies:
   Sub-topology: 0
    Source: by-word (topics: [by-word-repartition])
      --> count
    Processor: count (stores: [counts])
      --> counts-out
      <-- by-word
    Sink: counts-out (topic: counts)
      <-- count

  Sub-topology: 1
    Source: extra (topics: [late, later])
      --> lines-merge
    Source: lines (topics: [lines])
      --> lines-merge
    Processor: lines-merge (stores: [])
      --> by-word-key
      <-- extra, lines
    Processor: by-word-key (stores: [])
      --> by-word-sink
      <-- lines-merge
    Sink: by-word-sink (topic: by-word-repartition)
      <-- by-word-key

";
    assert_eq!(topology().describe(), expected);
}

#[test]
fn mermaid_shows_sub_topologies_stores_and_topics() {
    let expected = r#"flowchart TD
  t0(["by-word-repartition"])
  t1(["counts"])
  t2(["late"])
  t3(["later"])
  t4(["lines"])
  subgraph s0["by-word"]
    n5["by-word"]
    n6["count"]
    n7["counts-out"]
    s0_0[("counts")]
    n5 --> n6
    n6 --> n7
    n6 -.- s0_0
  end
  subgraph s1["extra"]
    n1["extra"]
    n0["lines"]
    n2["lines-merge"]
    n3["by-word-key"]
    n4["by-word-sink"]
    n1 --> n2
    n0 --> n2
    n2 --> n3
    n3 --> n4
  end
  t4 --> n0
  t2 --> n1
  t3 --> n1
  n4 --> t0
  t0 --> n5
  n7 --> t1
"#;
    assert_eq!(topology().describe_mermaid(), expected);
}

#[test]
fn dot_shows_sub_topologies_stores_and_topics() {
    let expected = r#"digraph topology {
  subgraph cluster_0 {
    label="by-word";
    "by-word" [shape=box];
    "count" [shape=box];
    "counts-out" [shape=box];
    "store counts" [label="counts", shape=cylinder];
    "by-word" -> "count";
    "count" -> "counts-out";
    "count" -> "store counts" [dir=none, style=dashed];
  }
  subgraph cluster_1 {
    label="extra";
    "extra" [shape=box];
    "lines" [shape=box];
    "lines-merge" [shape=box];
    "by-word-key" [shape=box];
    "by-word-sink" [shape=box];
    "extra" -> "lines-merge";
    "lines" -> "lines-merge";
    "lines-merge" -> "by-word-key";
    "by-word-key" -> "by-word-sink";
  }
  "topic lines" [label="lines", shape=ellipse];
  "topic lines" -> "lines";
  "topic late" [label="late", shape=ellipse];
  "topic late" -> "extra";
  "topic later" [label="later", shape=ellipse];
  "topic later" -> "extra";
  "topic by-word-repartition" [label="by-word-repartition", shape=ellipse];
  "by-word-sink" -> "topic by-word-repartition";
  "topic by-word-repartition" [label="by-word-repartition", shape=ellipse];
  "topic by-word-repartition" -> "by-word";
  "topic counts" [label="counts", shape=ellipse];
  "counts-out" -> "topic counts";
}
"#;
    assert_eq!(topology().describe_dot(), expected);
}
