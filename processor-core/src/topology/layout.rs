//! Which nodes belong together: sub-topologies are the connected parts of the graph, over edges and shared stores.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::bounded;
use super::draft::{Draft, TopicName};
use super::{SubTopology, TopologyError};
use crate::ids::InputIndex;

/// The most stores a sub-topology may have: their changelog ends travel in the offset metadata, which has a bound.
const STORES_MAX: usize = 16;

/// The sub-topologies, by name. Every node belongs to one, because every stream begins at a source.
pub(super) fn subtopologies(drafts: &[Draft], inputs: &[TopicName]) -> Result<Vec<SubTopology>, TopologyError> {
    let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (node, part) in parts_of(drafts).into_iter().enumerate() {
        parts.entry(part).or_default().push(node);
    }
    let mut found = Vec::new();
    for nodes in parts.into_values() {
        found.push(subtopology(drafts, inputs, nodes)?);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// For each node the lowest node that it is connected with.
fn parts_of(drafts: &[Draft]) -> Vec<usize> {
    let mut parts: Vec<usize> = (0..drafts.len()).collect();
    let mut first_with_store: BTreeMap<&str, usize> = BTreeMap::new();
    for (node, draft) in drafts.iter().enumerate() {
        for &parent in &draft.parents {
            unite(&mut parts, node, parent);
        }
        for store in &draft.stores {
            let first = *first_with_store.entry(store.name).or_insert(node);
            unite(&mut parts, node, first);
        }
    }
    (0..drafts.len()).map(|node| root(&parts, node)).collect()
}

fn unite(parts: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parts, a), root(parts, b));
    parts[a.max(b)] = a.min(b);
}

fn root(parts: &[usize], mut node: usize) -> usize {
    while parts[node] != node {
        node = parts[node];
    }
    node
}

fn subtopology(drafts: &[Draft], inputs: &[TopicName], nodes: Vec<usize>) -> Result<SubTopology, TopologyError> {
    let mut sources = Vec::new();
    let (mut stores, mut store_specs) = (Vec::<Arc<str>>::new(), Vec::new());
    let mut store_makers = Vec::new();
    let mut name: Option<&str> = None;
    for &node in &nodes {
        let draft = &drafts[node];
        if let Some(source) = draft.source() {
            name = Some(name.map_or(&*draft.name, |name| name.min(&draft.name)));
            for topic in &source.topics {
                let input = inputs.binary_search(topic).expect("inputs holds every source's topics");
                let input = u16::try_from(input).expect("build() bounds the number of inputs");
                sources.push((InputIndex::new(input), node));
            }
        }
        for store in &draft.stores {
            if !stores.iter().any(|known| **known == *store.name) {
                stores.push(Arc::from(store.name));
                store_specs.push(store.spec.clone().expect("build() has refused settings that cannot be"));
                store_makers.push(store.maker.clone());
            }
        }
    }
    bounded("stores in one sub-topology", stores.len(), STORES_MAX)?;
    sources.sort_unstable();
    let name = Arc::from(name.expect("every stream begins at a source"));
    let inputs = sources.iter().map(|&(input, _)| input).collect();
    Ok(SubTopology { name, inputs, stores, store_specs, store_makers, sources, nodes })
}
