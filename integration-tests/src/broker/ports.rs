//! Free ports that stay free while a node is down.
//!
//! They are taken from below the kernel's ephemeral range. A port that binding port 0 would give lies inside that range:
//! once its broker is killed, any outgoing connection of the machine may get it, and a client that retries the dead
//! broker can even connect to itself. The broker could then not start again on its port.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

const PORTS_A_NODE: u16 = 3;
const LOWEST: u16 = 10_000;
const EPHEMERAL_DEFAULT: u16 = 32_768;

/// Where a node listens, always on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePorts {
    /// Clients and the other brokers.
    pub client: u16,
    /// The other controllers.
    pub controller: u16,
    /// A proxy in front of this node; used when the cluster has `proxy_ports`.
    pub behind_proxy: u16,
}

/// Ports in a row from `first` on, or any free ones when one of those is taken.
pub fn preferred(nodes: u16, first: u16) -> Result<Vec<NodePorts>> {
    let row = first..first + nodes * PORTS_A_NODE;
    if row.clone().any(|port| listen(port).is_none()) {
        return free(nodes);
    }
    Ok(row.collect::<Vec<_>>().chunks(PORTS_A_NODE.into()).map(NodePorts::of).collect())
}

/// Ports for `nodes` nodes that nobody listens on.
pub(super) fn free(nodes: u16) -> Result<Vec<NodePorts>> {
    let wanted = usize::from(nodes * PORTS_A_NODE);
    let range = LOWEST..first_ephemeral();
    let width = u64::from(range.end - range.start);
    let start = RandomState::new().hash_one(std::process::id()) % width;
    // Holding every listener until the last is found keeps the ports distinct.
    let held: Vec<TcpListener> =
        (0..width).map(|step| range.start + ((start + step) % width) as u16).filter_map(listen).take(wanted).collect();
    ensure!(held.len() == wanted, "no {wanted} free ports in {range:?} on 127.0.0.1: stop what listens there");
    let ports: Vec<u16> = held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<Result<_>>()?;
    Ok(ports.chunks(PORTS_A_NODE.into()).map(NodePorts::of).collect())
}

impl NodePorts {
    fn of(ports: &[u16]) -> Self {
        let [client, controller, behind_proxy] = ports else { panic!("a node has 3 ports, not {ports:?}") };
        Self { client: *client, controller: *controller, behind_proxy: *behind_proxy }
    }
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

fn first_ephemeral() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first: u16 = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(EPHEMERAL_DEFAULT);
    first.max(LOWEST + 1_000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn free_ports_are_distinct_and_below_the_ephemeral_range() -> Result<()> {
        let nodes = free(3)?;
        let all: BTreeSet<u16> = nodes.iter().flat_map(|n| [n.client, n.controller, n.behind_proxy]).collect();
        assert_eq!(all.len(), 9);
        assert!(all.iter().all(|port| (LOWEST..first_ephemeral()).contains(port)));
        Ok(())
    }

    #[test]
    fn preferred_ports_give_way_to_a_listener() -> Result<()> {
        let first = free(1)?[0].client;
        let _held = listen(first);
        let ports = preferred(1, first)?;
        assert_ne!(ports[0].client, first);
        Ok(())
    }

    #[test]
    fn taken_ports_are_passed_over() -> Result<()> {
        let taken = free(1)?[0].client;
        let _held = listen(taken);
        for _ in 0..20 {
            assert!(free(1)?.iter().all(|n| ![n.client, n.controller, n.behind_proxy].contains(&taken)));
        }
        Ok(())
    }
}
