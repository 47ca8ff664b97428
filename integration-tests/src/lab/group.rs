//! Which member of a consumer group has which partitions.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::groups::GroupInfo;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a coordinator about one group.
pub struct Group {
    id: String,
    client: BaseConsumer,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Group {
    /// Of a group that may not exist yet.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(bootstrap: &str, id: &str) -> Result<Self> {
        let client = ClientConfig::new().set("bootstrap.servers", bootstrap).set("client.id", "lab-group").create();
        Ok(Self { id: id.to_owned(), client: client.with_context(|| format!("create a client for {bootstrap}"))? })
    }

    /// The partitions of each member's topics by the member's `client.id`; nothing while the group is forming.
    pub fn assignments(&self) -> BTreeMap<String, Vec<i32>> {
        let Ok(list) = self.client.fetch_group_list(Some(&self.id), REQUEST_TIMEOUT) else { return BTreeMap::new() };
        let stable = list.groups().iter().filter(|group| group.state() == "Stable");
        let members = stable.flat_map(GroupInfo::members);
        members.filter_map(|member| Some((member.client_id().to_owned(), partitions(member.assignment()?)?))).collect()
    }
}

/// Decodes `ConsumerProtocolAssignment`: a version, then topics with their partitions, then what is of no interest.
fn partitions(assignment: &[u8]) -> Option<Vec<i32>> {
    let mut rest = assignment.get(2..)?;
    let mut found = Vec::new();
    for _ in 0..int(&mut rest)? {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        rest = tail.get(usize::from(u16::from_be_bytes(*length))..)?;
        for _ in 0..int(&mut rest)? {
            found.push(int(&mut rest)?);
        }
    }
    found.sort_unstable();
    Some(found)
}

fn int(rest: &mut &[u8]) -> Option<i32> {
    let (bytes, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(i32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::partitions;

    #[test]
    fn an_assignment_of_two_topics_is_read() {
        let bytes =
            b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\x02\0\0\0\x00\0\x02bb\0\0\0\x01\0\0\0\x07\xff\xff\xff\xff";
        assert_eq!(partitions(bytes), Some(vec![0, 2, 7]));
    }

    #[test]
    fn a_cut_assignment_is_refused() {
        assert_eq!(partitions(b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0"), None);
    }
}
