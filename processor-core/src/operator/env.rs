//! What the nodes of a task share, and how a record reaches the nodes behind a node.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::error::{FailureKind, RecordFailure};
use crate::ids::{NodeIndex, Offset, OutputIndex, Partition, TaskId, Timestamp};
use crate::record::{BatchInfo, InputRecord, Outbox, Record};
use crate::store::{AnyOverlay, Base};
use crate::time::{Due, Schedules};

/// The part of a task that its nodes share.
pub(crate) struct TaskEnv {
    pub(crate) task: TaskId,
    pub(crate) stores: Vec<Box<dyn AnyOverlay>>,
    pub(crate) outbox: Outbox,
    pub(crate) stream_time: Option<Timestamp>,
    pub(crate) origin: Origin,
    /// The node that runs: a panic is its failure.
    pub(crate) node: RunningNode,
    /// The first failure of the record in process; it counts even if an operator swallows the error.
    pub(crate) failure: Option<Failed>,
    pub(crate) schedules: Schedules,
    /// An operator asked for a commit behind the record in process.
    pub(crate) commit_requested: bool,
    /// How many partitions each output topic has.
    pub(crate) output_partitions: Arc<[u32]>,
}

/// Which node of a task runs, or ran last. Another thread may look, to say what a task is busy with. Clones are the same.
///
/// ```
#[doc = include_str!("../record/example_task.txt")]
/// let running = task.running_node(); // for a thread that watches
/// let of_watcher = running.clone();
/// task.process(0, &reading(0, "21"), batch, &NoStores);
/// assert_eq!(of_watcher.get(), running.get());
/// assert_eq!(topology.node_name(of_watcher.get()), "readings"); // the sink has given back to it
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RunningNode(Arc<AtomicU16>);

impl RunningNode {
    pub(crate) fn new(node: NodeIndex) -> Self {
        Self(Arc::new(AtomicU16::new(node.get())))
    }

    /// The node. Nothing else can be concluded from it: it says no more than its name.
    ///
    /// ```
    #[doc = include_str!("../record/example_task.txt")]
    /// task.process(0, &reading(0, "21"), batch, &NoStores);
    /// let node = task.running_node().get();
    /// assert_eq!(topology.node_name(node), "readings"); // what a slow task may be said to hang in
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self) -> NodeIndex {
        NodeIndex::new(self.0.load(Ordering::Relaxed))
    }

    /// From here on this node runs. Returns the one before. One thread alone writes, so no exchange is needed.
    pub(crate) fn enter(&self, node: NodeIndex) -> NodeIndex {
        let before = self.get();
        self.0.store(node.get(), Ordering::Relaxed);
        before
    }
}

/// Where the record in process came from.
pub(crate) struct Origin {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
    pub(crate) batch: BatchInfo,
}

/// A failure and the node whose policy it goes to.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) node: NodeIndex,
    pub(crate) failure: RecordFailure,
}

impl Failed {
    /// Writes a failure down, unless an earlier one stands there.
    fn first(
        slot: &mut Option<Self>,
        running: &RunningNode,
        kind: FailureKind,
        node: &str,
        message: impl std::fmt::Display,
    ) {
        slot.get_or_insert_with(|| {
            let failure = RecordFailure { kind, node: node.to_owned(), message: message.to_string() };
            Self { node: running.get(), failure }
        });
    }

    /// An operator has asked for what the topology does not give it. That is written down before the panic, so that it is
    /// not taken for a failure of the record, which a policy could pass over.
    #[cold]
    pub(crate) fn miswired(slot: &mut Option<Self>, running: &RunningNode, node: &str, message: &str) -> ! {
        Self::first(slot, running, FailureKind::Wiring, node, message);
        panic!("{message}")
    }
}

/// What one pass through the nodes may read: the committed state, and the input record where there is one.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) base: &'a dyn Base,
    /// `None` in a wall-clock punctuation.
    pub(crate) input: Option<&'a dyn InputRecord>,
}

impl TaskEnv {
    /// Writes the record's failure down, unless an earlier one stands there.
    pub(crate) fn fail(&mut self, kind: FailureKind, node: &str, message: impl std::fmt::Display) -> Recorded {
        Failed::first(&mut self.failure, &self.node, kind, node, message);
        Recorded
    }

    /// How many partitions an output topic has.
    pub(crate) fn partitions_of(&self, output: OutputIndex) -> u32 {
        self.output_partitions[output.slot()]
    }
}

/// The record has failed, and [`TaskEnv::failure`] says why.
#[derive(Debug)]
pub(crate) struct Recorded;

/// Whatever takes records of these types: an operator's node, or a sink's.
pub(crate) trait Receive<K, V> {
    fn receive(&mut self, record: Record<K, V>, env: &mut TaskEnv, run: Run<'_>) -> Result<(), Recorded>;
    /// Punctuates the node that the firing schedule belongs to, if that is this one or one behind it; says whether.
    fn punctuate(&mut self, due: &Due, env: &mut TaskEnv, run: Run<'_>) -> Result<bool, Recorded>;
    fn open(&mut self, env: &mut TaskEnv) -> Result<(), Recorded>;
    fn close(&mut self);
    fn name(&self) -> &str;
}

/// The nodes behind a node.
pub(crate) struct Children<K, V>(pub(crate) Vec<Box<dyn Receive<K, V>>>);

impl<K: Clone, V: Clone> Children<K, V> {
    /// Hands the record to every child, in the order in which they were connected.
    pub(crate) fn forward(&mut self, record: Record<K, V>, env: &mut TaskEnv, run: Run<'_>) -> Result<(), Recorded> {
        let Some((last, others)) = self.0.split_last_mut() else { return Ok(()) };
        for child in others {
            child.receive(record.clone(), env, run)?;
        }
        last.receive(record, env, run)
    }
}

impl<K, V> Children<K, V> {
    pub(crate) fn named(&mut self, name: &str) -> Option<&mut (dyn Receive<K, V> + 'static)> {
        self.0.iter_mut().find(|child| child.name() == name).map(|child| &mut **child)
    }

    pub(crate) fn punctuate(&mut self, due: &Due, env: &mut TaskEnv, run: Run<'_>) -> Result<bool, Recorded> {
        for child in &mut self.0 {
            if child.punctuate(due, env, run)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn open(&mut self, env: &mut TaskEnv) -> Result<(), Recorded> {
        self.0.iter_mut().try_for_each(|child| child.open(env))
    }

    pub(crate) fn close(&mut self) {
        self.0.iter_mut().for_each(|child| child.close());
    }
}

/// One parent's way to a node that has several. Only such nodes are counted and borrowed; one with a single parent is
/// a plain box in it.
pub(crate) struct Shared<K, V> {
    node: Rc<RefCell<Box<dyn Receive<K, V>>>>,
    name: Arc<str>,
    /// One of the ways opens and closes the node.
    owner: bool,
}

impl<K, V> Shared<K, V> {
    /// A way for each of so many parents, made one by one; the first is the owner.
    pub(crate) fn ways(node: Box<dyn Receive<K, V>>) -> impl FnMut() -> Self {
        let name: Arc<str> = Arc::from(node.name());
        let node = Rc::new(RefCell::new(node));
        let mut owner = true;
        move || Self { node: node.clone(), name: name.clone(), owner: std::mem::replace(&mut owner, false) }
    }
}

impl<K, V> Receive<K, V> for Shared<K, V> {
    fn receive(&mut self, record: Record<K, V>, env: &mut TaskEnv, run: Run<'_>) -> Result<(), Recorded> {
        // The graph has no cycles, so the node is never in the middle of another record.
        self.node.borrow_mut().receive(record, env, run)
    }

    fn punctuate(&mut self, due: &Due, env: &mut TaskEnv, run: Run<'_>) -> Result<bool, Recorded> {
        self.node.borrow_mut().punctuate(due, env, run)
    }

    fn open(&mut self, env: &mut TaskEnv) -> Result<(), Recorded> {
        if self.owner { self.node.borrow_mut().open(env) } else { Ok(()) }
    }

    fn close(&mut self) {
        if self.owner {
            self.node.borrow_mut().close();
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}
