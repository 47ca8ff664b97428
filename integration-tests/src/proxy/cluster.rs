//! One proxy in front of each broker of a cluster, and one set of rules for all of them.
//!
//! Which broker leads a partition or coordinates a transaction is the cluster's business, and changes. So a rule is
//! installed on every proxy and counts over all of them: it fires once in the cluster, wherever the request goes.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::{ApiKey, Injection, Proxy, Rule, Script};

/// The proxies of a cluster, in the order of its nodes.
#[derive(Debug)]
pub struct Proxies(Vec<Proxy>);

impl Proxies {
    /// Listens on a free port for each broker. Its [ports](Self::ports) are the cluster's
    /// [`proxy_ports`](crate::broker::ClusterConfig::proxy_ports).
    ///
    /// # Errors
    /// No port is free, no thread can be started, or there is no broker.
    pub fn bind(brokers: u16) -> Result<Self> {
        ensure!(brokers > 0, "a cluster has a broker");
        (0..brokers).map(|_| Proxy::bind()).collect::<Result<_>>().map(Self)
    }

    /// Where clients connect to, by broker.
    pub fn ports(&self) -> Vec<u16> {
        self.0.iter().map(Proxy::port).collect()
    }

    /// The listeners behind the proxies, by broker.
    ///
    /// # Panics
    /// There are more or fewer of them than proxies.
    pub fn forward_to(&self, behind: impl IntoIterator<Item = u16>) {
        let behind: Vec<u16> = behind.into_iter().collect();
        assert_eq!(behind.len(), self.0.len(), "one listener for each proxy");
        self.0.iter().zip(behind).for_each(|(proxy, port)| proxy.forward_to(port));
    }

    /// The client's `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.0.iter().map(Proxy::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// Each of them.
    pub fn each(&self) -> &[Proxy] {
        &self.0
    }

    /// Installs a rule on all of them; see [`Proxy::inject`].
    pub fn inject(&self, rule: Rule) -> Arc<Injection> {
        let injection = Injection::new(rule);
        self.0.iter().for_each(|proxy| proxy.install(&injection));
        injection
    }

    /// Installs the rules of a script.
    pub fn play(&self, script: &Script) -> Vec<Arc<Injection>> {
        script.rules().iter().map(|rule| self.inject(rule.clone())).collect()
    }

    /// See [`Proxy::withdraw`].
    pub fn withdraw(&self, injection: &Arc<Injection>) {
        self.0.iter().for_each(|proxy| proxy.withdraw(injection));
    }

    /// How many requests of a kind clients have sent so far, to all brokers together.
    pub fn requests(&self, api_key: ApiKey) -> u64 {
        self.0.iter().map(|proxy| proxy.requests(api_key)).sum()
    }

    /// # Panics
    /// A rule fired on none of them, so the test has not tested what it says.
    pub fn assert_all_fired(&self) {
        self.0.iter().for_each(Proxy::assert_all_fired);
    }
}
