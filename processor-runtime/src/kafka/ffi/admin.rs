//! Questions to the cluster: asked without waiting, answered as events on a queue of their own.

mod removal;

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::bindings::rd_kafka_admin_op_t as Op;

use super::partitions::{entries, entry};
use super::{Client, Code, Fault, PartitionEntry, PartitionList, c_count, c_millis, c_string, raw, text};

/// Which end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Spec {
    /// The offset of the first record.
    Start,
    /// The offset behind the last record, whatever became of its transaction.
    End,
}

/// Where answers arrive.
pub(in crate::kafka) struct EventQueue {
    raw: NonNull<rd::rd_kafka_queue_t>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues do their own locking.
unsafe impl Send for EventQueue {}

impl fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventQueue").field(&self.client).finish()
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        // SAFETY: owned, given back once, before the client. Answers that arrive later find a disabled queue.
        unsafe { rd::rd_kafka_queue_destroy(self.raw.as_ptr()) };
    }
}

impl EventQueue {
    pub(in crate::kafka) fn new(client: &Arc<Client>) -> Self {
        // SAFETY: the handle is alive; librdkafka aborts when memory is out.
        let raw = unsafe { rd::rd_kafka_queue_new(client.raw()) };
        Self { raw: NonNull::new(raw).expect("librdkafka aborts when memory is out"), client: client.clone() }
    }

    /// The next answer.
    pub(in crate::kafka) fn poll(&self, wait: Duration) -> Option<Event> {
        // SAFETY: the queue is alive; the event, if any, is ours.
        let raw = unsafe { rd::rd_kafka_queue_poll(self.raw.as_ptr(), c_millis(wait)) };
        NonNull::new(raw).map(|raw| Event { raw, _client: self.client.clone() })
    }
}

/// How long a question that its coordinator answers may take at librdkafka: as long as can be said.
///
/// IMPORTANT: none may time out there. One that does before it could be sent is used after it was freed as soon as the
/// coordinator is back (`rd_kafka_admin_coord_request` says that it is gone, and `rd_kafka_coord_req_fail` answers it all the
/// same, `rdkafka_admin.c:490`, `rdkafka_coord.c:330`; lk#4605): the process aborts, or the client's main thread waits for
/// ever, and with it whoever asks the client for anything. So whoever asks gives up by himself, asks this client no more
/// and drops it: what is never asked again cannot get so old.
const COORDINATOR_WAIT: Duration = Duration::from_hours(1);

/// The options of one question.
struct Options(NonNull<rd::rd_kafka_AdminOptions_t>);

impl Options {
    /// Of a question to a coordinator.
    fn for_coordinator(client: &Client, operation: Op, ticket: usize) -> Self {
        Self::new(client, operation, COORDINATOR_WAIT, ticket)
    }

    fn new(client: &Client, operation: Op, wait_max: Duration, ticket: usize) -> Self {
        let mut words: [c_char; 256] = [0; 256];
        // SAFETY: the handle is alive, the buffer has the length given; the ticket is a number in a pointer's clothes
        // that nobody follows.
        unsafe {
            let options = rd::rd_kafka_AdminOptions_new(client.raw(), operation);
            let options = NonNull::new(options).expect("the operation is one of librdkafka's");
            let code = raw::rd_kafka_AdminOptions_set_request_timeout(
                options.as_ptr(),
                c_millis(wait_max),
                words.as_mut_ptr(),
                words.len(),
            );
            assert_eq!(Code(code), Code::NONE, "a time-out of up to an hour is in range");
            rd::rd_kafka_AdminOptions_set_opaque(options.as_ptr(), ticket as *mut c_void);
            Self(options)
        }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: owned, and dropped once; a question copies its options.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) };
    }
}

/// The questions. `ticket` comes back with the answer; none of them waits. Those that a coordinator answers have no time
/// limit: see [`COORDINATOR_WAIT`].
impl EventQueue {
    /// The committed offsets of a group. `stable`: not while a transaction that holds one is open.
    pub(in crate::kafka) fn ask_committed(&self, group: &str, partitions: &PartitionList, stable: bool, ticket: usize) {
        let operation = Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
        let options = Options::for_coordinator(&self.client, operation, ticket);
        let group = c_string(group);
        // SAFETY: all pointers are alive through the calls; the question copies what it is given and is freed here.
        unsafe {
            let refused = rd::rd_kafka_AdminOptions_set_require_stable_offsets(options.0.as_ptr(), i32::from(stable));
            Fault::take(refused).expect("the option belongs to this question");
            let mut question = rd::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), partitions.as_ptr());
            rd::rd_kafka_ListConsumerGroupOffsets(
                self.client.raw(),
                &raw mut question,
                1,
                options.0.as_ptr(),
                self.raw.as_ptr(),
            );
            rd::rd_kafka_ListConsumerGroupOffsets_destroy(question);
        }
    }

    /// One end of these logs for a `read_uncommitted` reader. The offsets in the list are replaced.
    pub(in crate::kafka) fn ask_log_offsets<'a>(
        &self,
        partitions: impl ExactSizeIterator<Item = &'a processor_core::ids::TopicPartition>,
        spec: Spec,
        wait_max: Duration,
        ticket: usize,
    ) {
        let spec = match spec {
            Spec::Start => rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST,
            Spec::End => rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST,
        };
        let mut list = PartitionList::of(partitions.map(|partition| (partition, spec as i64)));
        let options = Options::new(&self.client, Op::RD_KAFKA_ADMIN_OP_LISTOFFSETS, wait_max, ticket);
        let uncommitted = rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED;
        // SAFETY: all pointers are alive through the calls; the question copies what it is given.
        unsafe {
            let refused = rd::rd_kafka_AdminOptions_set_isolation_level(options.0.as_ptr(), uncommitted);
            Fault::take(refused).expect("the option belongs to this question");
            rd::rd_kafka_ListOffsets(self.client.raw(), list.as_mut_ptr(), options.0.as_ptr(), self.raw.as_ptr());
        }
    }

    /// The members of a group.
    pub(in crate::kafka) fn ask_members(&self, group: &str, ticket: usize) {
        let options = Options::for_coordinator(&self.client, Op::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, ticket);
        let group = c_string(group);
        let mut names = [group.as_ptr()];
        // SAFETY: all pointers are alive through the call; the question copies what it is given.
        unsafe {
            rd::rd_kafka_DescribeConsumerGroups(
                self.client.raw(),
                names.as_mut_ptr(),
                names.len(),
                options.0.as_ptr(),
                self.raw.as_ptr(),
            );
        }
    }

    /// The cluster's id.
    pub(in crate::kafka) fn ask_cluster(&self, wait_max: Duration) {
        let options = Options::new(&self.client, Op::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER, wait_max, 0);
        // SAFETY: all pointers are alive through the call.
        unsafe { rd::rd_kafka_DescribeCluster(self.client.raw(), options.0.as_ptr(), self.raw.as_ptr()) };
    }

    /// What a topic is.
    pub(in crate::kafka) fn ask_topic(&self, topic: &str, wait_max: Duration) {
        let options = Options::new(&self.client, Op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, wait_max, 0);
        let topic = c_string(topic);
        let mut names = [topic.as_ptr()];
        // SAFETY: all pointers are alive through the calls; the collection is freed here, the question copied it.
        unsafe {
            let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            rd::rd_kafka_DescribeTopics(self.client.raw(), topics, options.0.as_ptr(), self.raw.as_ptr());
            rd::rd_kafka_TopicCollection_destroy(topics);
        }
    }

    /// The settings of a topic or a broker.
    pub(in crate::kafka) fn ask_settings(&self, kind: SettingsOf, name: &str, wait_max: Duration) {
        let options = Options::new(&self.client, Op::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, wait_max, 0);
        let name = c_string(name);
        let kind = match kind {
            SettingsOf::Topic => rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
            SettingsOf::Broker => rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_BROKER,
        };
        // SAFETY: all pointers are alive through the calls; the resource is freed here, the question copied it.
        unsafe {
            let mut resource = rd::rd_kafka_ConfigResource_new(kind, name.as_ptr());
            rd::rd_kafka_DescribeConfigs(
                self.client.raw(),
                &raw mut resource,
                1,
                options.0.as_ptr(),
                self.raw.as_ptr(),
            );
            rd::rd_kafka_ConfigResource_destroy(resource);
        }
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// Where librdkafka finds the numbers impossible.
    pub(in crate::kafka) fn ask_to_create(
        &self,
        topic: &str,
        partitions: usize,
        replication: Option<usize>,
        settings: &BTreeMap<String, String>,
        wait_max: Duration,
    ) -> Result<(), String> {
        let options = Options::new(&self.client, Op::RD_KAFKA_ADMIN_OP_CREATETOPICS, wait_max, 0);
        let topic = c_string(topic);
        let (partitions, replication) = (c_count(partitions), replication.map_or(-1, c_count));
        let mut words: [c_char; 256] = [0; 256];
        // SAFETY: all pointers are alive through the calls, the buffer has the length given; the new topic is freed here,
        // the question copied it.
        unsafe {
            let mut new =
                rd::rd_kafka_NewTopic_new(topic.as_ptr(), partitions, replication, words.as_mut_ptr(), words.len());
            if new.is_null() {
                return Err(text(words.as_ptr()));
            }
            for (name, value) in settings {
                let (name, value) = (c_string(name), c_string(value));
                let _ = rd::rd_kafka_NewTopic_set_config(new, name.as_ptr(), value.as_ptr());
            }
            rd::rd_kafka_CreateTopics(self.client.raw(), &raw mut new, 1, options.0.as_ptr(), self.raw.as_ptr());
            rd::rd_kafka_NewTopic_destroy(new);
        }
        Ok(())
    }
}

/// Whose settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum SettingsOf {
    Topic,
    Broker,
}

/// What a topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct TopicFacts {
    pub(in crate::kafka) partitions: usize,
    /// The replicas of the partition that has fewest.
    pub(in crate::kafka) replicas_min: usize,
    /// The id that changes when a topic is deleted and made again.
    pub(in crate::kafka) id: String,
}

/// An answer.
pub(in crate::kafka) struct Event {
    raw: NonNull<rd::rd_kafka_event_t>,
    _client: Arc<Client>,
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: owned, and dropped once, before the client.
        unsafe { rd::rd_kafka_event_destroy(self.raw.as_ptr()) };
    }
}

/// The elements of an array that belongs to an event.
///
/// # Safety
/// `array` points to `count` pointers (it may be null where `count` is 0) that live for `'a`.
unsafe fn elements<'a, T>(array: *mut *const T, count: usize) -> &'a [*const T] {
    if array.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: by the contract.
    unsafe { std::slice::from_raw_parts(array, count) }
}

fn wrong_answer() -> Fault {
    let code = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__BAD_MSG;
    Fault::bare(Code::of(code), "the answer is not of the kind that was asked for")
}

impl Event {
    /// The number that the question was asked with.
    pub(in crate::kafka) fn ticket(&self) -> usize {
        // SAFETY: the event is alive.
        (unsafe { rd::rd_kafka_event_opaque(self.raw.as_ptr()) }) as usize
    }

    /// The question as a whole failed.
    pub(in crate::kafka) fn check(&self) -> Result<(), Fault> {
        // SAFETY: the event is alive, and so is its text.
        unsafe {
            let code = Code(raw::rd_kafka_event_error(self.raw.as_ptr()));
            if code == Code::NONE {
                return Ok(());
            }
            Err(Fault::bare(code, text(rd::rd_kafka_event_error_string(self.raw.as_ptr()))))
        }
    }

    /// To [`EventQueue::ask_committed`].
    pub(in crate::kafka) fn committed(&self) -> Result<Vec<PartitionEntry>, Fault> {
        self.check()?;
        let mut count = 0;
        // SAFETY: the event is alive, null is checked; all that hangs on the result lives as long as the event.
        unsafe {
            let result = rd::rd_kafka_event_ListConsumerGroupOffsets_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            let groups = rd::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
            let group = *elements(groups, count).first().ok_or_else(wrong_answer)?;
            let error = rd::rd_kafka_group_result_error(group);
            if !error.is_null() {
                return Err(Fault::read(error));
            }
            Ok(entries(rd::rd_kafka_group_result_partitions(group)))
        }
    }

    /// To [`EventQueue::ask_log_offsets`].
    pub(in crate::kafka) fn log_offsets(&self) -> Result<Vec<PartitionEntry>, Fault> {
        self.check()?;
        let mut count = 0;
        // SAFETY: as in `committed`.
        unsafe {
            let result = rd::rd_kafka_event_ListOffsets_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            let infos = rd::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            let read = |info: &*const _| entry(rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*info));
            Ok(elements(infos, count).iter().map(read).collect())
        }
    }

    /// To [`EventQueue::ask_members`]: client ids.
    pub(in crate::kafka) fn members(&self) -> Result<Vec<String>, Fault> {
        // SAFETY: the client id of a member that is valid for the call.
        self.of_members(|member| unsafe { text(rd::rd_kafka_MemberDescription_client_id(member)) })
    }

    /// To [`EventQueue::ask_members`]: client ids, each with what it was assigned.
    pub(in crate::kafka) fn owners(&self) -> Result<Vec<(String, Vec<PartitionEntry>)>, Fault> {
        // SAFETY: the member is valid for the call; its assignment, which may be null, and the list in it live with it.
        self.of_members(|member| unsafe {
            let assignment = rd::rd_kafka_MemberDescription_assignment(member);
            let partitions = if assignment.is_null() {
                std::ptr::null()
            } else {
                rd::rd_kafka_MemberAssignment_partitions(assignment)
            };
            (text(rd::rd_kafka_MemberDescription_client_id(member)), entries(partitions))
        })
    }

    fn of_members<T>(&self, read: impl Fn(*const rd::rd_kafka_MemberDescription_t) -> T) -> Result<Vec<T>, Fault> {
        self.check()?;
        let mut count = 0;
        // SAFETY: as in `committed`.
        unsafe {
            let result = rd::rd_kafka_event_DescribeConsumerGroups_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            let groups = rd::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            let group = *elements(groups, count).first().ok_or_else(wrong_answer)?;
            let error = rd::rd_kafka_ConsumerGroupDescription_error(group);
            if !error.is_null() && Code(raw::rd_kafka_error_code(error)) != Code::NONE {
                return Err(Fault::read(error));
            }
            let members = rd::rd_kafka_ConsumerGroupDescription_member_count(group);
            let member = |index| read(rd::rd_kafka_ConsumerGroupDescription_member(group, index));
            Ok((0..members).map(member).collect())
        }
    }

    /// To [`EventQueue::ask_cluster`].
    pub(in crate::kafka) fn cluster_id(&self) -> Result<String, Fault> {
        self.check()?;
        // SAFETY: as in `committed`.
        unsafe {
            let result = rd::rd_kafka_event_DescribeCluster_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            Ok(text(rd::rd_kafka_DescribeCluster_result_cluster_id(result)))
        }
    }

    /// To [`EventQueue::ask_cluster`]: the ids of its brokers.
    pub(in crate::kafka) fn broker_ids(&self) -> Result<Vec<i32>, Fault> {
        self.check()?;
        let mut count = 0;
        // SAFETY: as in `committed`.
        unsafe {
            let result = rd::rd_kafka_event_DescribeCluster_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            let nodes = rd::rd_kafka_DescribeCluster_result_nodes(result, &raw mut count);
            Ok(elements(nodes, count).iter().map(|node| rd::rd_kafka_Node_id(*node)).collect())
        }
    }

    /// To [`EventQueue::ask_topic`].
    pub(in crate::kafka) fn topic(&self) -> Result<TopicFacts, Fault> {
        self.check()?;
        let mut count = 0;
        // SAFETY: as in `committed`; the id's text lives as long as the id.
        unsafe {
            let result = rd::rd_kafka_event_DescribeTopics_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            let topic = *elements(topics, count).first().ok_or_else(wrong_answer)?;
            let error = rd::rd_kafka_TopicDescription_error(topic);
            if !error.is_null() && Code(raw::rd_kafka_error_code(error)) != Code::NONE {
                return Err(Fault::read(error));
            }
            let partitions = rd::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
            let replicas = |partition: &*const _| {
                let mut replicas = 0;
                let _ = rd::rd_kafka_TopicPartitionInfo_replicas(*partition, &raw mut replicas);
                replicas
            };
            let partitions = elements(partitions, count);
            let replicas_min = partitions.iter().map(replicas).min().unwrap_or(0);
            let id = rd::rd_kafka_TopicDescription_topic_id(topic);
            let id = if id.is_null() { String::new() } else { text(rd::rd_kafka_Uuid_base64str(id)) };
            Ok(TopicFacts { partitions: partitions.len(), replicas_min, id })
        }
    }

    /// To [`EventQueue::ask_settings`].
    pub(in crate::kafka) fn settings(&self) -> Result<BTreeMap<String, String>, Fault> {
        self.check()?;
        let mut count = 0;
        // SAFETY: as in `committed`.
        unsafe {
            let result = rd::rd_kafka_event_DescribeConfigs_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            let resources = rd::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count);
            let resource = *elements(resources, count).first().ok_or_else(wrong_answer)?;
            let code = Code(raw::rd_kafka_ConfigResource_error(resource));
            if code != Code::NONE {
                return Err(Fault::bare(code, text(rd::rd_kafka_ConfigResource_error_string(resource))));
            }
            let configs = rd::rd_kafka_ConfigResource_configs(resource, &raw mut count);
            let read = |entry: &*const _| {
                (text(rd::rd_kafka_ConfigEntry_name(*entry)), text(rd::rd_kafka_ConfigEntry_value(*entry)))
            };
            Ok(elements(configs, count).iter().map(read).collect())
        }
    }

    /// To [`EventQueue::ask_to_create`].
    pub(in crate::kafka) fn created(&self) -> Result<(), Fault> {
        self.check()?;
        let mut count = 0;
        // SAFETY: as in `committed`.
        unsafe {
            let result = rd::rd_kafka_event_CreateTopics_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            let topics = rd::rd_kafka_CreateTopics_result_topics(result, &raw mut count);
            topic_result(*elements(topics, count).first().ok_or_else(wrong_answer)?)
        }
    }
}

/// What became of a request about a topic.
///
/// # Safety
/// `topic` is valid for the call.
unsafe fn topic_result(topic: *const rd::rd_kafka_topic_result_t) -> Result<(), Fault> {
    // SAFETY: by the contract; the text, if any, belongs to the topic.
    unsafe {
        let code = Code(raw::rd_kafka_topic_result_error(topic));
        if code == Code::NONE {
            return Ok(());
        }
        let words = rd::rd_kafka_topic_result_error_string(topic);
        let words = if words.is_null() { code.text().to_owned() } else { text(words) };
        Err(Fault::bare(code, words))
    }
}
