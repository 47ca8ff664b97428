//! What `build()` checks before a graph becomes a [`Topology`].

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Graph, Kind, TopicName};
use super::{Parts, Topology, TopologyError, layout};
use crate::protocol::failure::Policy;

/// The longest name of a node, a store or a topic; Kafka's bound for topics is 249.
const NAME_BYTES_MAX: usize = 200;

pub(super) fn checked(graph: Graph) -> Result<Topology, TopologyError> {
    let Graph { nodes, errors, policy } = graph;
    check_names(&nodes)?;
    if let Some(error) = errors.into_iter().next() {
        return Err(error);
    }
    check_topics(&nodes)?;
    check_connections(&nodes)?;
    check_stores(&nodes)?;
    let inputs = inputs_of(&nodes)?;
    let outputs = outputs_of(&nodes, &policy, &inputs)?;
    bounded("nodes", nodes.len(), usize::from(u16::MAX))?;
    bounded("input topics", inputs.len(), usize::from(u16::MAX))?;
    bounded("output topics", outputs.len(), usize::from(u16::MAX) / 2)?;
    let subtopologies = layout::subtopologies(&nodes, &inputs)?;
    Ok(Topology::new(Parts { inputs, outputs, subtopologies, nodes, policy }))
}

fn check_names(drafts: &[Draft]) -> Result<(), TopologyError> {
    let mut seen = BTreeSet::new();
    for draft in drafts {
        check_name("a node's name", &draft.name)?;
        if !seen.insert(&draft.name) {
            return Err(TopologyError::DuplicateNode(draft.name.clone()));
        }
        draft.stores.iter().try_for_each(|store| check_name("a store's name", store.name))?;
    }
    Ok(())
}

fn check_name(what: &'static str, name: &str) -> Result<(), TopologyError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.len() <= NAME_BYTES_MAX && name.chars().all(legal) && name.chars().any(|c| c != '.') {
        Ok(())
    } else {
        Err(TopologyError::IllegalName { what, name: name.to_owned() })
    }
}

fn topics_of(draft: &Draft) -> Option<&[TopicName]> {
    match &draft.kind {
        Kind::Source(source) => Some(&source.topics),
        Kind::Sink(sink) => Some(&sink.topics),
        Kind::Process { .. } => None,
    }
}

fn check_topics(drafts: &[Draft]) -> Result<(), TopologyError> {
    for draft in drafts {
        let Some(topics) = topics_of(draft) else { continue };
        if topics.is_empty() {
            return Err(TopologyError::NoTopic(draft.name.clone()));
        }
        let mut seen = BTreeSet::new();
        for topic in topics {
            let (TopicName::Given(name) | TopicName::Repartition(name)) = topic;
            check_name("a topic's name", name)?;
            if !seen.insert(topic) {
                return Err(TopologyError::TopicTwice { node: draft.name.clone(), topic: topic.to_string() });
            }
        }
        if draft.source().is_some_and(|source| source.partitions == Some(0)) {
            return Err(TopologyError::NoPartitions(draft.name.clone()));
        }
    }
    Ok(())
}

fn check_connections(drafts: &[Draft]) -> Result<(), TopologyError> {
    let needs_more = |draft: &&Draft| match &draft.kind {
        Kind::Source(_) => true,
        Kind::Process { only_forwards, .. } => *only_forwards,
        Kind::Sink(_) => false,
    };
    let dangling = drafts.iter().filter(needs_more).find(|draft| draft.children.is_empty());
    dangling.map_or(Ok(()), |draft| Err(TopologyError::Unconnected(draft.name.clone())))
}

fn check_stores(drafts: &[Draft]) -> Result<(), TopologyError> {
    let mut types = BTreeMap::new();
    let mut specs = BTreeMap::new();
    for draft in drafts {
        let mut of_node = BTreeSet::new();
        for store in &draft.stores {
            if !of_node.insert(store.name) {
                let (node, store) = (draft.name.clone(), store.name.to_owned());
                return Err(TopologyError::StoreTwice { node, store });
            }
            if *types.entry(store.name).or_insert(store.types) != store.types {
                return Err(TopologyError::StoreTypes(store.name.to_owned()));
            }
            let spec = store.spec.as_ref().map_err(|&(setting, why)| TopologyError::StoreSetting {
                store: store.name,
                setting,
                why,
            })?;
            if *specs.entry(store.name).or_insert(spec) != spec {
                return Err(TopologyError::StoreSpecs(store.name.to_owned()));
            }
        }
    }
    Ok(())
}

/// Every topic that is read, in order.
fn inputs_of(drafts: &[Draft]) -> Result<Vec<TopicName>, TopologyError> {
    let mut by_topic: BTreeMap<&TopicName, &str> = BTreeMap::new();
    for draft in drafts {
        for topic in draft.source().map_or(&[][..], |source| &source.topics) {
            if let Some(other) = by_topic.insert(topic, &draft.name) {
                let (one, two) = (other.to_owned(), draft.name.clone());
                return Err(TopologyError::DuplicateInput(one, two, topic.to_string()));
            }
        }
    }
    if by_topic.is_empty() {
        return Err(TopologyError::Empty);
    }
    Ok(by_topic.into_keys().cloned().collect())
}

/// Every topic that is written, dead letters included, in order.
fn outputs_of(drafts: &[Draft], policy: &Policy, inputs: &[TopicName]) -> Result<Vec<TopicName>, TopologyError> {
    let mut outputs: BTreeSet<TopicName> = BTreeSet::new();
    outputs.extend(drafts.iter().filter_map(Draft::sink).flat_map(|sink| sink.topics.iter().cloned()));
    for (draft, topic) in dead_letter_topics(drafts, policy) {
        check_name("a dead-letter topic's name", topic)?;
        let name = TopicName::Given(topic.to_owned());
        if inputs.contains(&name) {
            let (node, topic) = (draft.name.clone(), topic.to_owned());
            return Err(TopologyError::DeadLetterIsInput { node, topic });
        }
        outputs.insert(name);
    }
    Ok(outputs.into_iter().collect())
}

/// Where dead letters go, by the node whose records they are.
pub(super) fn dead_letter_topics<'a>(
    drafts: &'a [Draft],
    policy: &'a Policy,
) -> impl Iterator<Item = (&'a Draft, &'a str)> {
    drafts.iter().flat_map(move |draft| {
        let of_timestamps = draft.source().and_then(|source| source.invalid_timestamps.as_ref());
        let of_node = draft.policy.as_ref().unwrap_or(policy);
        let policies = [Some(of_node), of_timestamps].into_iter().flatten();
        policies.filter_map(Policy::dead_letter_topic).map(move |topic| (draft, topic))
    })
}

pub(super) fn bounded(what: &'static str, count: usize, most: usize) -> Result<(), TopologyError> {
    if count <= most { Ok(()) } else { Err(TopologyError::TooMany { what, count, most }) }
}
