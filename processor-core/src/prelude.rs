//! One import for a program: `use processor_core::prelude::*;`

pub use crate::codec::{Bincode, Codec, DecimalText, Json, Optional, Raw, Utf8};
pub use crate::codec::{JavaBoolean, JavaDouble, JavaFloat, JavaInteger, JavaLong, JavaShort, JavaUuid};
pub use crate::error::{CodecError, OperatorError};
pub use crate::ids::{Offset, Partition, TaskId, Timestamp};
pub use crate::operator::{Context, OpenContext, Operator, Scan, Store, StoreError};
pub use crate::protocol::failure::{FailurePolicy, Policy};
pub use crate::record::{BatchInfo, Record, RecordMetadata};
pub use crate::store::{KeyPart, KeyValueStoreDef, StoreKey, StoreValue, TotalF64};
pub use crate::time::{Clock, Punctuation, ScheduleId};
pub use crate::topology::{Stream, Topology, TopologyBuilder, TopologyError};
