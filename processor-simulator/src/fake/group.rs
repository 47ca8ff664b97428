//! The consumer group: members, generations, eager rebalances, the range assignor, committed offsets.
//!
//! A rebalance begins when a member comes or goes. Every member then has to come back, giving up what it owns, and when
//! all have, a new generation begins with a new assignment. A member that does not come back holds the others up until
//! its session is ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use processor_core::ids::{Offset, Partition, TopicPartition};
use processor_runtime::kafka::{Member, Membership};

/// A consumer group.
#[derive(Debug, Default)]
pub struct Group {
    generation: i32,
    rebalancing: bool,
    members: BTreeMap<String, GroupMember>,
    /// Members whose `group.instance.id` another one has taken over.
    replaced: BTreeSet<String>,
    members_made: u64,
    offsets: BTreeMap<TopicPartition, (Offset, String)>,
    /// Where the record of each stands in the group's own partition.
    appended: BTreeMap<TopicPartition, u64>,
}

#[derive(Debug)]
struct GroupMember {
    member: Member,
    topics: Vec<Arc<str>>,
    /// Has come back in the rebalance that is under way.
    joined: bool,
    assignment: Vec<TopicPartition>,
    /// The generation whose assignment it was told last.
    told: Option<i32>,
}

/// Where a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The group does not know it (any more).
    Unknown,
    /// Another member has taken over its `group.instance.id`.
    Replaced,
    /// It has to give up what it owns and come back.
    MustRejoin,
    /// It has come back; others have not.
    Waiting,
    /// It owns this.
    Owns(i32, Vec<TopicPartition>),
}

/// Why a membership proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAMember {
    /// `UNKNOWN_MEMBER_ID`.
    Unknown,
    /// `ILLEGAL_GENERATION`.
    OtherGeneration,
    /// `FENCED_INSTANCE_ID`.
    Replaced,
}

impl Group {
    /// A client joins; returns its member id. One with a known `group.instance.id` takes the place of that member, and
    /// nothing moves. Of any other client the member that it was before is no more: it was given up, and its session is over
    /// before the group has waited for it for long.
    pub fn join(&mut self, member: &Member, topics: &[Arc<str>]) -> String {
        self.members_made += 1;
        let id = format!("{}-{:04}", member.client_id, self.members_made);
        let same_instance = |known: &GroupMember| {
            member.group_instance_id.is_some() && known.member.group_instance_id == member.group_instance_id
        };
        let before = self.members.iter().find(|(_, known)| same_instance(known)).map(|(id, _)| id.clone());
        let mut joining = GroupMember {
            member: member.clone(),
            topics: topics.to_vec(),
            joined: true,
            assignment: Vec::new(),
            told: None,
        };
        if let Some((known, before)) = before.and_then(|before| Some((self.members.remove(&before)?, before))) {
            self.replaced.insert(before);
            joining.assignment = known.assignment;
        } else {
            for before in self.members_of(&member.client_id) {
                self.members.remove(&before);
            }
            self.begin_rebalance();
        }
        self.members.insert(id.clone(), joining);
        id
    }

    /// A member has given up what it owned and comes back.
    pub fn rejoin(&mut self, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.joined = true;
        }
    }

    /// Removes a member, because it leaves or because its session has ended.
    pub fn remove(&mut self, id: &str) {
        if self.members.remove(id).is_some() {
            self.begin_rebalance();
        }
    }

    /// The member ids of a client.
    pub fn members_of(&self, client_id: &str) -> Vec<String> {
        let of_client = self.members.iter().filter(|(_, member)| member.member.client_id == client_id);
        of_client.map(|(id, _)| id.clone()).collect()
    }

    /// A member was told what it owns.
    pub fn tell(&mut self, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.told = Some(self.generation);
        }
    }

    /// Whether a client knows what it owns now: what it was told last is of this generation, and no other one is to come.
    pub fn is_up_to_date(&self, client_id: &str) -> bool {
        let is_told =
            |member: &GroupMember| member.member.client_id == client_id && member.told == Some(self.generation);
        !self.rebalancing && self.members.values().any(is_told)
    }

    /// The client ids of all members.
    pub fn client_ids(&self) -> Vec<String> {
        self.members.values().map(|member| member.member.client_id.clone()).collect()
    }

    /// Where a member stands. Ends the rebalance if all have come back; `partitions` counts a topic's partitions.
    pub fn standing(&mut self, id: &str, partitions: impl Fn(&str) -> i32) -> Standing {
        if self.rebalancing && self.members.values().all(|member| member.joined) {
            self.end_rebalance(partitions);
        }
        match self.members.get(id) {
            None if self.replaced.contains(id) => Standing::Replaced,
            None => Standing::Unknown,
            Some(member) if !self.rebalancing => Standing::Owns(self.generation, member.assignment.clone()),
            Some(member) if member.joined => Standing::Waiting,
            Some(_) => Standing::MustRejoin,
        }
    }

    /// What the broker checks of offsets in a transaction. `(-1, "")` is not checked at all.
    pub fn check(&self, membership: &Membership) -> Result<(), NotAMember> {
        if !membership.is_checked() {
            return Ok(());
        }
        if self.replaced.contains(&membership.member_id) {
            return Err(NotAMember::Replaced);
        }
        if !self.members.contains_key(&membership.member_id) {
            return Err(NotAMember::Unknown);
        }
        if membership.generation == self.generation { Ok(()) } else { Err(NotAMember::OtherGeneration) }
    }

    /// The committed offset of a partition, with its metadata.
    pub fn committed(&self, partition: &TopicPartition) -> Option<&(Offset, String)> {
        self.offsets.get(partition)
    }

    /// All committed offsets.
    pub fn all_committed(&self) -> &BTreeMap<TopicPartition, (Offset, String)> {
        &self.offsets
    }

    /// Commits an offset whose record stands there. Markers of two transactions may come in any order: the offset that was
    /// written last counts.
    pub fn commit(&mut self, partition: TopicPartition, offset: Offset, metadata: String, appended: u64) {
        if self.appended.get(&partition).is_none_or(|&newest| newest < appended) {
            self.appended.insert(partition.clone(), appended);
            self.offsets.insert(partition, (offset, metadata));
        }
    }

    /// Forgets every committed offset, as `offsets.retention.minutes` does.
    pub fn forget_offsets(&mut self) {
        self.offsets.clear();
        self.appended.clear();
    }

    /// How many generations there have been: one for each rebalance that has come to its end.
    pub fn generations(&self) -> u64 {
        u64::try_from(self.generation).expect("generations are counted from 0")
    }

    /// Makes every member come back.
    pub fn begin_rebalance(&mut self) {
        self.rebalancing = true;
        for member in self.members.values_mut() {
            member.joined = false;
        }
    }

    fn end_rebalance(&mut self, partitions: impl Fn(&str) -> i32) {
        self.generation += 1;
        self.rebalancing = false;
        let topics: BTreeSet<Arc<str>> =
            self.members.values().flat_map(|member| member.topics.iter().cloned()).collect();
        for member in self.members.values_mut() {
            member.assignment.clear();
        }
        for topic in topics {
            self.assign_range(&topic, partitions(&topic));
        }
    }

    /// The range assignor: consecutive partitions, the first members get one more. Topics with the same number of
    /// partitions are split in the same way, so what belongs to one task stays together.
    fn assign_range(&mut self, topic: &Arc<str>, count: i32) {
        let mut subscribed: Vec<&mut GroupMember> =
            self.members.values_mut().filter(|member| member.topics.contains(topic)).collect();
        // Members come by member id, which begins with the client id; static ones are ordered by instance.
        subscribed.sort_by(|a, b| a.member.group_instance_id.cmp(&b.member.group_instance_id));
        let members = subscribed.len() as i32;
        let mut next = 0;
        for (place, member) in (0..).zip(subscribed) {
            let share = count / members + i32::from(place < count % members);
            let range =
                (next..next + share).map(|partition| TopicPartition::new(topic.clone(), Partition::new(partition)));
            member.assignment.extend(range);
            next += share;
        }
    }
}
