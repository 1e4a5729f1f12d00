//! An invocation on the wire.

use std::sync::Arc;

use execution::certification::DATA_CERTIFICATE_BYTES_MAX;
use execution::{Callback, EntryPoint, Freezing, RunStatus, SystemView};
use serde::{Deserialize, Serialize};

use crate::outcome::principal;
use crate::{Bytes, Limits, List, Malformed};

/// Most controllers, environment variables and callee queues that an invocation names; replicated limits are
/// far lower.
const ENTRIES_MAX: usize = 1_000_000;

/// See [`execution::Invocation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation<'a> {
    /// Which message this is.
    pub id: u64,
    /// What runs.
    #[serde(borrow)]
    pub entry: Entry<'a>,
    /// The caller.
    #[serde(borrow)]
    pub caller: Bytes<'a>,
    /// Instructions of the run.
    pub instructions_max: u64,
    /// Instructions of the first slice.
    pub slice: u64,
    /// What the System API answers from.
    #[serde(borrow)]
    pub system: System<'a>,
    /// Limits; `None`: as in the invocation before, and mostly so. Boxed, they aren't moved with each.
    pub limits: Option<Box<Limits>>,
}

/// See [`execution::EntryPoint`]. Callbacks are (function, environment).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are those of the domain type")]
pub enum Entry<'a> {
    Start,
    Init(#[serde(borrow)] Bytes<'a>),
    PreUpgrade,
    PostUpgrade(#[serde(borrow)] Bytes<'a>),
    InspectMessage(&'a str, #[serde(borrow)] Bytes<'a>),
    Heartbeat,
    GlobalTimer,
    LowWasmMemory,
    Update(&'a str, #[serde(borrow)] Bytes<'a>),
    ReplicatedQuery(&'a str, #[serde(borrow)] Bytes<'a>),
    Query(&'a str, #[serde(borrow)] Bytes<'a>),
    Transform(&'a str, #[serde(borrow)] Bytes<'a>),
    CompositeQuery(&'a str, #[serde(borrow)] Bytes<'a>),
    Reply {
        callback: (u64, u64),
        #[serde(borrow)]
        data: Bytes<'a>,
        composite: bool,
    },
    Reject {
        callback: (u64, u64),
        code: u8,
        message: &'a str,
        composite: bool,
    },
    Cleanup {
        callback: (u64, u64),
        code: u8,
        composite: bool,
    },
}

/// See [`execution::SystemView`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the domain type")]
pub struct System<'a> {
    #[serde(borrow)]
    pub canister: Bytes<'a>,
    #[serde(borrow)]
    pub subnet: Bytes<'a>,
    pub time: u64,
    pub version: u64,
    /// As `ic0.canister_status` gives it.
    pub status: u8,
    #[serde(borrow)]
    pub controllers: List<Bytes<'a>, ENTRIES_MAX>,
    pub balance: u128,
    /// Memory bytes, message bytes, memory allocation, compute allocation, threshold, reserved.
    pub freezing: (u64, u64, u64, u64, u64, u128),
    pub cycles_available: u128,
    pub cycles_refunded: u128,
    pub deadline: u64,
    pub global_timer: u64,
    pub answered: bool,
    pub answer_needed: bool,
    pub call_context_instructions: u64,
    #[serde(borrow)]
    pub data_certificate: Option<Bytes<'a>>,
    #[serde(borrow)]
    pub environment_variables: List<(&'a str, &'a str), ENTRIES_MAX>,
    #[serde(borrow)]
    pub root_key: Bytes<'a>,
    pub wasm_memory_limit: u64,
    pub subnet_memory_available: u64,
    pub callbacks_free: usize,
    #[serde(borrow)]
    pub queue_taken: List<(Bytes<'a>, usize), ENTRIES_MAX>,
    pub log_capacity: usize,
    pub log_bytes_free: usize,
}

impl<'a> Invocation<'a> {
    /// The wire form. `limits` are given where the worker doesn't have them yet.
    #[must_use]
    pub fn new(invocation: &'a execution::Invocation, limits: Option<&execution::Limits>) -> Self {
        let execution::Invocation { id, entry, caller, instructions_max, slice, system, limits: _ } =
            invocation;
        Self {
            id: *id,
            entry: Entry::from(entry),
            caller: Bytes(caller.as_slice()),
            instructions_max: *instructions_max,
            slice: *slice,
            system: System::from(system),
            limits: limits.map(|limits| Box::new(Limits::from(limits))),
        }
    }

    /// The invocation, with the limits that are in force for it.
    ///
    /// # Errors
    /// A principal or status that there isn't, or a data certificate longer than any is.
    pub fn with_limits(self, limits: Arc<execution::Limits>) -> Result<execution::Invocation, Malformed> {
        Ok(execution::Invocation {
            id: self.id,
            entry: self.entry.into(),
            caller: principal(self.caller)?,
            instructions_max: self.instructions_max,
            slice: self.slice,
            system: self.system.try_into()?,
            limits,
        })
    }
}

fn certificate(data: Bytes<'_>) -> Result<Arc<[u8]>, Malformed> {
    if data.0.len() > DATA_CERTIFICATE_BYTES_MAX {
        return Err(Malformed("data certificate too long"));
    }
    Ok(Arc::from(data.0))
}

fn pair(callback: &Callback) -> (u64, u64) {
    (callback.function, callback.environment)
}

fn callback((function, environment): (u64, u64)) -> Callback {
    Callback { function, environment }
}

impl<'a> From<&'a EntryPoint> for Entry<'a> {
    fn from(entry: &'a EntryPoint) -> Self {
        match entry {
            EntryPoint::Start => Self::Start,
            EntryPoint::Init { arg } => Self::Init(Bytes(arg)),
            EntryPoint::PreUpgrade => Self::PreUpgrade,
            EntryPoint::PostUpgrade { arg } => Self::PostUpgrade(Bytes(arg)),
            EntryPoint::InspectMessage { method, arg } => Self::InspectMessage(method, Bytes(arg)),
            EntryPoint::Heartbeat => Self::Heartbeat,
            EntryPoint::GlobalTimer => Self::GlobalTimer,
            EntryPoint::LowWasmMemory => Self::LowWasmMemory,
            EntryPoint::Update { method, arg } => Self::Update(method, Bytes(arg)),
            EntryPoint::ReplicatedQuery { method, arg } => Self::ReplicatedQuery(method, Bytes(arg)),
            EntryPoint::Query { method, arg } => Self::Query(method, Bytes(arg)),
            EntryPoint::Transform { method, arg } => Self::Transform(method, Bytes(arg)),
            EntryPoint::CompositeQuery { method, arg } => Self::CompositeQuery(method, Bytes(arg)),
            EntryPoint::Reply { callback, data, composite } => {
                Self::Reply { callback: pair(callback), data: Bytes(data), composite: *composite }
            }
            EntryPoint::Reject { callback, code, message, composite } => {
                Self::Reject { callback: pair(callback), code: *code, message, composite: *composite }
            }
            EntryPoint::Cleanup { callback, code, composite } => {
                Self::Cleanup { callback: pair(callback), code: *code, composite: *composite }
            }
        }
    }
}

impl From<Entry<'_>> for EntryPoint {
    fn from(entry: Entry<'_>) -> Self {
        let (name, bytes) = (|method: &str| method.to_owned(), |arg: Bytes<'_>| Arc::from(arg.0));
        match entry {
            Entry::Start => Self::Start,
            Entry::Init(arg) => Self::Init { arg: bytes(arg) },
            Entry::PreUpgrade => Self::PreUpgrade,
            Entry::PostUpgrade(arg) => Self::PostUpgrade { arg: bytes(arg) },
            Entry::InspectMessage(method, arg) => {
                Self::InspectMessage { method: name(method), arg: bytes(arg) }
            }
            Entry::Heartbeat => Self::Heartbeat,
            Entry::GlobalTimer => Self::GlobalTimer,
            Entry::LowWasmMemory => Self::LowWasmMemory,
            Entry::Update(method, arg) => Self::Update { method: name(method), arg: bytes(arg) },
            Entry::ReplicatedQuery(method, arg) => {
                Self::ReplicatedQuery { method: name(method), arg: bytes(arg) }
            }
            Entry::Query(method, arg) => Self::Query { method: name(method), arg: bytes(arg) },
            Entry::Transform(method, arg) => Self::Transform { method: name(method), arg: bytes(arg) },
            Entry::CompositeQuery(method, arg) => {
                Self::CompositeQuery { method: name(method), arg: bytes(arg) }
            }
            Entry::Reply { callback: pair, data, composite } => {
                Self::Reply { callback: callback(pair), data: bytes(data), composite }
            }
            Entry::Reject { callback: pair, code, message, composite } => {
                Self::Reject { callback: callback(pair), code, message: name(message), composite }
            }
            Entry::Cleanup { callback: pair, code, composite } => {
                Self::Cleanup { callback: callback(pair), code, composite }
            }
        }
    }
}

impl<'a> From<&'a SystemView> for System<'a> {
    fn from(view: &'a SystemView) -> Self {
        let SystemView {
            canister,
            subnet,
            time,
            version,
            status,
            controllers,
            balance,
            freezing:
                Freezing {
                    memory_bytes,
                    message_bytes,
                    memory_allocation,
                    compute_allocation,
                    threshold_seconds,
                    reserved,
                },
            cycles_available,
            cycles_refunded,
            deadline,
            global_timer,
            answered,
            answer_needed,
            call_context_instructions,
            data_certificate,
            environment_variables,
            root_key,
            wasm_memory_limit,
            subnet_memory_available,
            callbacks_free,
            queue_taken,
            log_capacity,
            log_bytes_free,
        } = view;
        Self {
            canister: Bytes(canister.as_slice()),
            subnet: Bytes(subnet.as_slice()),
            time: *time,
            version: *version,
            status: match status {
                RunStatus::Running => 1,
                RunStatus::Stopping => 2,
                RunStatus::Stopped => 3,
            },
            controllers: controllers.iter().map(|id| Bytes(id.as_slice())).collect(),
            balance: *balance,
            freezing: (
                *memory_bytes,
                *message_bytes,
                *memory_allocation,
                *compute_allocation,
                *threshold_seconds,
                *reserved,
            ),
            cycles_available: *cycles_available,
            cycles_refunded: *cycles_refunded,
            deadline: *deadline,
            global_timer: *global_timer,
            answered: *answered,
            answer_needed: *answer_needed,
            call_context_instructions: *call_context_instructions,
            data_certificate: data_certificate.as_deref().map(Bytes),
            environment_variables: environment_variables
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            root_key: Bytes(root_key),
            wasm_memory_limit: *wasm_memory_limit,
            subnet_memory_available: *subnet_memory_available,
            callbacks_free: *callbacks_free,
            queue_taken: queue_taken.iter().map(|(id, taken)| (Bytes(id.as_slice()), *taken)).collect(),
            log_capacity: *log_capacity,
            log_bytes_free: *log_bytes_free,
        }
    }
}

impl TryFrom<System<'_>> for SystemView {
    type Error = Malformed;

    fn try_from(wire: System<'_>) -> Result<Self, Malformed> {
        let (memory_bytes, message_bytes, memory_allocation, compute_allocation, threshold_seconds, reserved) =
            wire.freezing;
        let queue_taken = wire.queue_taken.0.into_iter().map(|(id, taken)| Ok((principal(id)?, taken)));
        Ok(Self {
            canister: principal(wire.canister)?,
            subnet: principal(wire.subnet)?,
            time: wire.time,
            version: wire.version,
            status: match wire.status {
                1 => RunStatus::Running,
                2 => RunStatus::Stopping,
                3 => RunStatus::Stopped,
                _ => return Err(Malformed("unknown run status")),
            },
            controllers: wire.controllers.0.into_iter().map(principal).collect::<Result<_, _>>()?,
            balance: wire.balance,
            freezing: Freezing {
                memory_bytes,
                message_bytes,
                memory_allocation,
                compute_allocation,
                threshold_seconds,
                reserved,
            },
            cycles_available: wire.cycles_available,
            cycles_refunded: wire.cycles_refunded,
            deadline: wire.deadline,
            global_timer: wire.global_timer,
            answered: wire.answered,
            answer_needed: wire.answer_needed,
            call_context_instructions: wire.call_context_instructions,
            data_certificate: wire.data_certificate.map(certificate).transpose()?,
            environment_variables: wire
                .environment_variables
                .0
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            root_key: Arc::from(wire.root_key.0),
            wasm_memory_limit: wire.wasm_memory_limit,
            subnet_memory_available: wire.subnet_memory_available,
            callbacks_free: wire.callbacks_free,
            queue_taken: queue_taken.collect::<Result<_, Malformed>>()?,
            log_capacity: wire.log_capacity,
            log_bytes_free: wire.log_bytes_free,
        })
    }
}
