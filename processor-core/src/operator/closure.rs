//! Functions as operators: what `.process(name, …)` takes beside a factory of operators.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{Context, Operator};
use crate::error::OperatorError;
use crate::record::Record;

/// What makes the operator of a node, one for each task: a factory such as `move || MovingAverage { size }`, or a
/// function that is the whole operator.
///
/// ```
/// use processor_core::prelude::*;
///
/// fn double(record: Record<String, f64>, ctx: &mut Context<'_, String, f64>) -> Result<(), OperatorError> {
///     let value = record.value * 2.0;
///     ctx.forward(record.with_value(value))
/// }
///
/// let mut topology = Topology::builder();
/// topology
///     .source("readings", "readings", (Utf8, JavaDouble))
///     .process("double", double)
///     .each("halve", |record, ctx| {
///         let value = record.value / 2.0;
///         ctx.forward(record.with_value(value))
///     })
///     .sink("same", "same", (Utf8, JavaDouble));
/// topology.build()?;
/// # Ok::<(), TopologyError>(())
/// ```
///
/// A closure given to `process` must name its argument types, because the compiler has two kinds of function to choose
/// from; given to [`each`](crate::topology::Stream::each) it need not. `Marker` tells the two kinds apart and is always
/// inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no operator for a stream of `{K}` and `{V}`",
    label = "not an operator of this stream",
    note = "give `process` a factory such as `|| MyOperator {{ .. }}`, whose `KeyIn` and `ValueIn` are the stream's types",
    note = "or a function of `(Record<K, V>, &mut Context<'_, KOut, VOut>)` that returns `Result<(), OperatorError>`",
    note = "what it holds must be `Send + Sync + 'static`: move it in"
)]
pub trait IntoOperator<K, V, Marker> {
    /// The operator.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// use processor_core::operator::IntoOperator;
    ///
    /// # struct Average;
    /// # impl Operator for Average {
    /// #     type KeyIn = String;
    /// #     type ValueIn = f64;
    /// #     type KeyOut = String;
    /// #     type ValueOut = f64;
    /// #     fn process(
    /// #         &mut self,
    /// #         reading: Record<String, f64>,
    /// #         ctx: &mut Context<'_, String, f64>,
    /// #     ) -> Result<(), OperatorError> {
    /// #         ctx.forward(reading)
    /// #     }
    /// # }
    /// fn name_of<Marker, O: IntoOperator<String, f64, Marker>>(_: O) -> &'static str {
    ///     std::any::type_name::<O::Operator>()
    /// }
    ///
    /// assert!(name_of(|| Average).ends_with("Average")); // `Average` is an `Operator`
    /// ```
    type Operator: Operator<KeyIn = K, ValueIn = V>;

    /// What makes one for each task.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// use processor_core::operator::IntoOperator;
    ///
    /// # struct Average {
    /// #     size: usize,
    /// # }
    /// # impl Operator for Average {
    /// #     type KeyIn = String;
    /// #     type ValueIn = f64;
    /// #     type KeyOut = String;
    /// #     type ValueOut = f64;
    /// #     fn process(
    /// #         &mut self,
    /// #         reading: Record<String, f64>,
    /// #         ctx: &mut Context<'_, String, f64>,
    /// #     ) -> Result<(), OperatorError> {
    /// #         ctx.forward(reading)
    /// #     }
    /// # }
    /// let factory = IntoOperator::into_factory(|| Average { size: 3 });
    /// let (of_one_task, of_another) = (factory(), factory());
    /// assert_eq!((of_one_task.size, of_another.size), (3, 3));
    /// ```
    fn into_factory(self) -> impl Fn() -> Self::Operator + Send + Sync + 'static;
}

/// Marks a factory of operators.
///
/// Inferred; nobody writes it.
///
/// ```
/// # use processor_core::prelude::*;
/// use processor_core::operator::Factory;
///
/// # struct Average;
/// # impl Operator for Average {
/// #     type KeyIn = String;
/// #     type ValueIn = f64;
/// #     type KeyOut = String;
/// #     type ValueOut = f64;
/// #     fn process(
/// #         &mut self,
/// #         reading: Record<String, f64>,
/// #         ctx: &mut Context<'_, String, f64>,
/// #     ) -> Result<(), OperatorError> {
/// #         ctx.forward(reading)
/// #     }
/// # }
/// let mut topology = Topology::builder();
/// let readings = topology.source("readings", "readings", (Utf8, JavaDouble));
/// readings.process::<Factory<Average>, _>("average", || Average); // as `process` infers it
/// assert!(topology.build().is_ok());
/// ```
#[derive(Debug)]
pub struct Factory<O>(PhantomData<fn() -> O>);

impl<F, O> IntoOperator<O::KeyIn, O::ValueIn, Factory<O>> for F
where
    F: Fn() -> O + Send + Sync + 'static,
    O: Operator,
{
    type Operator = O;

    fn into_factory(self) -> impl Fn() -> O + Send + Sync + 'static {
        self
    }
}

/// Marks a function of a record and a context.
///
/// Inferred; nobody writes it.
///
/// ```
/// # use processor_core::prelude::*;
/// use processor_core::operator::PerRecord;
///
/// fn copy(
///     reading: Record<String, f64>,
///     ctx: &mut Context<'_, String, f64>,
/// ) -> Result<(), OperatorError> {
///     ctx.forward(reading)
/// }
///
/// let mut topology = Topology::builder();
/// let readings = topology.source("readings", "readings", (Utf8, JavaDouble));
/// readings.process::<PerRecord<String, f64>, _>("copy", copy); // as `process` infers it
/// assert!(topology.build().is_ok());
/// ```
#[derive(Debug)]
pub struct PerRecord<KOut, VOut>(PhantomData<fn() -> (KOut, VOut)>);

impl<F, K, V, KOut, VOut> IntoOperator<K, V, PerRecord<KOut, VOut>> for F
where
    F: Fn(Record<K, V>, &mut Context<'_, KOut, VOut>) -> Result<(), OperatorError> + Send + Sync + 'static,
    K: 'static,
    V: 'static,
    KOut: 'static,
    VOut: 'static,
{
    type Operator = Closure<F, K, V, KOut, VOut>;

    fn into_factory(self) -> impl Fn() -> Self::Operator + Send + Sync + 'static {
        let function = Arc::new(self);
        move || Closure { function: function.clone(), types: PhantomData }
    }
}

/// The operator that a function is; all tasks share the function.
///
/// [`IntoOperator`] makes it of a function; nobody writes it.
///
/// ```
/// # use processor_core::prelude::*;
/// use processor_core::operator::{Closure, IntoOperator};
///
/// fn copy(
///     reading: Record<String, f64>,
///     ctx: &mut Context<'_, String, f64>,
/// ) -> Result<(), OperatorError> {
///     ctx.forward(reading)
/// }
///
/// let factory = IntoOperator::into_factory(copy);
/// let _of_a_task: Closure<_, String, f64, String, f64> = factory();
/// ```
#[derive(Debug)]
pub struct Closure<F, K, V, KOut, VOut> {
    function: Arc<F>,
    #[expect(clippy::type_complexity, reason = "it is the function's type, in short")]
    types: PhantomData<fn(K, V) -> (KOut, VOut)>,
}

impl<F, K, V, KOut, VOut> Operator for Closure<F, K, V, KOut, VOut>
where
    F: Fn(Record<K, V>, &mut Context<'_, KOut, VOut>) -> Result<(), OperatorError> + Send + Sync + 'static,
    K: 'static,
    V: 'static,
    KOut: 'static,
    VOut: 'static,
{
    type KeyIn = K;
    type ValueIn = V;
    type KeyOut = KOut;
    type ValueOut = VOut;

    fn process(&mut self, record: Record<K, V>, ctx: &mut Context<'_, KOut, VOut>) -> Result<(), OperatorError> {
        (self.function)(record, ctx)
    }
}
