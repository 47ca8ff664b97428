//! Whether the group tells others what this worker advertises.
//!
//! A broker keeps the `client.id` with which a static member first joined, also when that member comes back with another one,
//! until its session has lapsed. So a worker that was restarted quickly, with another address, is looked for at the old one.
//! It finds that out whenever it asks who owns what, and says what mends it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use processor_core::protocol::client_id::{ClientId, HttpAddress};

use super::Owners;

/// What this worker wants the group to tell.
#[derive(Debug)]
pub struct Advertised {
    /// What the ids of its threads begin with.
    own_ids: String,
    address: OnceLock<HttpAddress>,
    told: AtomicBool,
}

impl Advertised {
    /// Of a static member: the ids of its threads begin with `own_ids`.
    pub fn new(own_ids: String) -> Self {
        Self { own_ids, address: OnceLock::new(), told: AtomicBool::new(false) }
    }

    /// It listens now, and joins the group with this address.
    pub fn set(&self, address: HttpAddress) {
        self.address.get_or_init(|| address);
    }

    /// Compares with what the group tells, and says once that it is something else.
    pub fn compare(&self, owners: &Owners) {
        if let Some(difference) = self.difference(owners)
            && !self.told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{difference}");
        }
    }

    fn difference(&self, owners: &Owners) -> Option<String> {
        let address = self.address.get()?;
        let mut own = owners.values().map(|text| ClientId::parse(text));
        let old = own.find(|id| id.transactional_id.starts_with(&self.own_ids) && id.http.as_ref() != Some(address))?;
        let old = old.http.map_or_else(|| "at no address".to_owned(), |old| format!("at {old}"));
        Some(format!(
            "the consumer group tells others that this worker is {old}, and not at {address}: it keeps what a member with an instance id \
             said when it first joined. Stop this worker once for longer than session.timeout"
        ))
    }
}

#[cfg(test)]
mod tests {
    use processor_core::ids::{Partition, TopicPartition};

    use super::*;

    #[test]
    fn only_an_address_of_its_own_that_is_not_told_counts() {
        let owners = |client_ids: &[&str]| {
            let partitions = (0..).map(|partition| TopicPartition::new("in", Partition::new(partition)));
            partitions.zip(client_ids.iter().map(|id| (*id).to_owned())).collect::<Owners>()
        };
        let advertised = Advertised::new("app:one:".to_owned());
        assert_eq!(advertised.difference(&owners(&["app:one:0@old:80"])), None, "it does not listen yet");
        advertised.set("new:80".parse().expect("an address"));
        assert_eq!(
            advertised.difference(&owners(&["app:one:0@new:80", "app:two:0@old:80", "app:one-b:0", "app:one"])),
            None
        );
        let difference =
            |id: &str| advertised.difference(&owners(&["app:one:0@new:80", id])).expect("it is another one");
        assert!(difference("app:one:1@old:80").contains("is at old:80, and not at new:80"));
        assert!(difference("app:one:1").contains("at no address"));
    }
}
