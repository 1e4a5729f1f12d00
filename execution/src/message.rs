//! What a backend is asked to run, and everything that the System API may tell the canister meanwhile.

use std::sync::Arc;

use crate::{Cycles, Instructions, Limits, Nanoseconds, Principal};

/// A pair of table index and environment that a canister named in `call_new` or `call_on_cleanup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Index into table 0.
    pub function: u64,
    /// Passed back unchanged.
    pub environment: u64,
}

/// Which entry point runs, with its payload. The contexts of `canister-execution.md` section 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryPoint {
    /// The Wasm start function (`s`).
    Start,
    /// `canister_init` (`I`).
    Init {
        /// Argument.
        arg: Arc<[u8]>,
    },
    /// `canister_pre_upgrade` (`G`).
    PreUpgrade,
    /// `canister_post_upgrade` (`I`).
    PostUpgrade {
        /// Argument.
        arg: Arc<[u8]>,
    },
    /// `canister_inspect_message` (`F`).
    InspectMessage {
        /// Method of the ingress message.
        method: String,
        /// Its argument.
        arg: Arc<[u8]>,
    },
    /// `canister_heartbeat` (`T`).
    Heartbeat,
    /// `canister_global_timer` (`T`).
    GlobalTimer,
    /// `canister_on_low_wasm_memory` (`T`).
    LowWasmMemory,
    /// `canister_update` (`U`).
    Update {
        /// Method name.
        method: String,
        /// Argument.
        arg: Arc<[u8]>,
    },
    /// `canister_query` in replicated mode (`RQ`).
    ReplicatedQuery {
        /// Method name.
        method: String,
        /// Argument.
        arg: Arc<[u8]>,
    },
    /// `canister_query` in non-replicated mode (`NRQ`).
    Query {
        /// Method name.
        method: String,
        /// Argument.
        arg: Arc<[u8]>,
    },
    /// `canister_query` as the transform of an HTTP outcall (`TQ`).
    Transform {
        /// Method name.
        method: String,
        /// Argument.
        arg: Arc<[u8]>,
    },
    /// `canister_composite_query` (`CQ`).
    CompositeQuery {
        /// Method name.
        method: String,
        /// Argument.
        arg: Arc<[u8]>,
    },
    /// Reply callback (`Ry`, `CRy`).
    Reply {
        /// The function.
        callback: Callback,
        /// The reply.
        data: Arc<[u8]>,
        /// Whether inside a composite query.
        composite: bool,
    },
    /// Reject callback (`Rt`, `CRt`).
    Reject {
        /// The function.
        callback: Callback,
        /// 1 to 6.
        code: u8,
        /// The text.
        message: String,
        /// Whether inside a composite query.
        composite: bool,
    },
    /// Cleanup callback (`C`, `CC`).
    Cleanup {
        /// The function.
        callback: Callback,
        /// Reject code of the response whose callback trapped; 0 for a reply.
        code: u8,
        /// Whether inside a composite query.
        composite: bool,
    },
}

impl EntryPoint {
    /// Whether effects of this kind of message may be committed.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        match self {
            Self::Start
            | Self::Init { .. }
            | Self::PreUpgrade
            | Self::PostUpgrade { .. }
            | Self::Heartbeat
            | Self::GlobalTimer
            | Self::LowWasmMemory
            | Self::Update { .. }
            | Self::ReplicatedQuery { .. } => true,
            Self::InspectMessage { .. }
            | Self::Query { .. }
            | Self::Transform { .. }
            | Self::CompositeQuery { .. } => false,
            Self::Reply { composite, .. }
            | Self::Reject { composite, .. }
            | Self::Cleanup { composite, .. } => !composite,
        }
    }

    /// Whether changes of heap, stable memory and globals are kept on success.
    #[must_use]
    pub fn keeps_memory(&self) -> bool {
        self.is_replicated() && !matches!(self, Self::ReplicatedQuery { .. })
    }

    /// A short, stable word for reports and metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Init { .. } => "init",
            Self::PreUpgrade => "pre_upgrade",
            Self::PostUpgrade { .. } => "post_upgrade",
            Self::InspectMessage { .. } => "inspect",
            Self::Heartbeat => "heartbeat",
            Self::GlobalTimer => "timer",
            Self::LowWasmMemory => "low_wasm_memory",
            Self::Update { .. } => "update",
            Self::ReplicatedQuery { .. } => "replicated_query",
            Self::Query { .. } => "query",
            Self::Transform { .. } => "transform",
            Self::CompositeQuery { .. } => "composite_query",
            Self::Reply { .. } => "reply_callback",
            Self::Reject { .. } => "reject_callback",
            Self::Cleanup { .. } => "cleanup",
        }
    }

    /// The method name, where there is one.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::InspectMessage { method, .. }
            | Self::Update { method, .. }
            | Self::ReplicatedQuery { method, .. }
            | Self::Query { method, .. }
            | Self::Transform { method, .. }
            | Self::CompositeQuery { method, .. } => Some(method),
            Self::Start
            | Self::Init { .. }
            | Self::PreUpgrade
            | Self::PostUpgrade { .. }
            | Self::Heartbeat
            | Self::GlobalTimer
            | Self::LowWasmMemory
            | Self::Reply { .. }
            | Self::Reject { .. }
            | Self::Cleanup { .. } => None,
        }
    }
}

/// One run of one entry point.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Which message this is, for tracing and binding; unique within a node's life, never committed.
    pub id: u64,
    /// What runs.
    pub entry: EntryPoint,
    /// `msg_caller`: the original caller of the call context; the management canister (empty) for tasks.
    pub caller: Principal,
    /// Instructions this run may use in all.
    pub instructions_max: Instructions,
    /// Instructions of the first slice; at least `instructions_max` where the kind isn't sliced.
    pub slice: Instructions,
    /// What the System API answers from.
    pub system: SystemView,
    /// Replicated limits and prices.
    pub limits: Arc<Limits>,
}

impl Invocation {
    /// Takes from the balance what a message before this one cost that used `instructions`, where this was made as if
    /// it had used none.
    pub fn charge(&mut self, memory64: bool, instructions: Instructions) {
        let price = |instructions| self.limits.execution_price(memory64, instructions);
        let cost = price(instructions).saturating_sub(price(0));
        self.system.balance = self.system.balance.saturating_sub(cost);
    }

    /// Whether a run of `other` is a run of this: all is equal but the number.
    #[must_use]
    pub fn same_run(&self, other: &Self) -> bool {
        let Self { id: _, entry, caller, instructions_max, slice, system, limits } = self;
        *entry == other.entry
            && *caller == other.caller
            && *instructions_max == other.instructions_max
            && *slice == other.slice
            && *system == other.system
            && (Arc::ptr_eq(limits, &other.limits) || *limits == other.limits)
    }
}

/// Run status as `ic0.canister_status` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunStatus {
    /// 1
    Running,
    /// 2
    Stopping,
    /// 3
    Stopped,
}

/// Everything that the System API reads besides the payload. All of it is constant while a message runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemView {
    /// The canister.
    pub canister: Principal,
    /// Its subnet.
    pub subnet: Principal,
    /// Time of the round.
    pub time: Nanoseconds,
    /// `canister_version`.
    pub version: u64,
    /// `canister_status`.
    pub status: RunStatus,
    /// Controllers.
    pub controllers: Vec<Principal>,
    /// Balance after the prepayment for this message and after accepted refunds.
    pub balance: Cycles,
    /// What the freezing limit is computed from.
    pub freezing: Freezing,
    /// `msg_cycles_available`.
    pub cycles_available: Cycles,
    /// `msg_cycles_refunded`; already part of `balance`.
    pub cycles_refunded: Cycles,
    /// `msg_deadline`; 0: none.
    pub deadline: Nanoseconds,
    /// The global timer; 0: not set.
    pub global_timer: Nanoseconds,
    /// Whether the call context has been answered by an earlier message.
    pub answered: bool,
    /// Whether the call context needs an answer (false for tasks).
    pub answer_needed: bool,
    /// Instructions of finished messages of the call context, for `performance_counter(1)`.
    pub call_context_instructions: Instructions,
    /// Data certificate, in queries on the target canister.
    pub data_certificate: Option<Arc<[u8]>>,
    /// Environment variables, sorted bytewise by name.
    pub environment_variables: Vec<(String, String)>,
    /// DER of the root key.
    pub root_key: Arc<[u8]>,
    /// `wasm_memory_limit`, bytes; 0: none. Enforced where `enforce_wasm_memory_limit`.
    pub wasm_memory_limit: u64,
    /// Subnet memory that this message may still take, bytes.
    pub subnet_memory_available: u64,
    /// Callbacks this message may still make: slots, and memory for the responses.
    pub callbacks_free: usize,
    /// Slots already taken in the queue to each callee that has some taken; all others are empty.
    pub queue_taken: Vec<(Principal, usize)>,
    /// Bytes that the canister log holds at most.
    pub log_capacity: usize,
    /// Bytes of it that are free.
    pub log_bytes_free: usize,
}

/// Inputs of the freezing limit (`canister-execution.md` section 3.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freezing {
    /// Bytes of everything stored at the start of the message, heap and stable memory included.
    pub memory_bytes: u64,
    /// Bytes of messages that wait for it, and that are kept free for responses to its calls.
    pub message_bytes: u64,
    /// Memory allocation, bytes; 0: best effort.
    pub memory_allocation: u64,
    /// Compute allocation, percent.
    pub compute_allocation: u64,
    /// Freezing threshold, seconds.
    pub threshold_seconds: u64,
    /// Reserved balance.
    pub reserved: Cycles,
}

impl Freezing {
    /// Bytes kept free for the response to each call without a deadline: the largest there can be.
    pub const RESPONSE_BYTES: u64 = 2 << 20;

    /// The same with so many more calls without a deadline.
    #[must_use]
    pub fn with_calls(&self, guaranteed: u64) -> Self {
        let bytes = guaranteed.saturating_mul(Self::RESPONSE_BYTES);
        Self { message_bytes: self.message_bytes.saturating_add(bytes), ..self.clone() }
    }

    /// The balance below which the canister is frozen, with `growth` more bytes of memory in use.
    #[must_use]
    pub fn limit(&self, limits: &Limits, growth: u64) -> Cycles {
        const GIB: Cycles = 1 << 30;
        let memory = self.memory_bytes.saturating_add(growth).max(self.memory_allocation);
        let bytes = Cycles::from(memory).saturating_add(Cycles::from(self.message_bytes));
        let seconds = Cycles::from(self.threshold_seconds);
        // A controller may set all of these to their largest.
        let storage = limits.scaled(limits.prices.storage_gib_second).saturating_mul(bytes);
        let storage = storage.saturating_mul(seconds) / GIB;
        let compute = limits
            .scaled(limits.prices.compute_percent_second)
            .saturating_mul(Cycles::from(self.compute_allocation))
            .saturating_mul(seconds);
        storage.saturating_add(compute)
    }

    /// What may be spent of `balance`: balance - max(freezing limit - reserved, 0), not below 0.
    #[must_use]
    pub fn liquid(&self, limits: &Limits, balance: Cycles, growth: u64) -> Cycles {
        balance.saturating_sub(self.limit(limits, growth).saturating_sub(self.reserved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(limits: Limits) -> Invocation {
        let nobody = Principal::anonymous();
        Invocation {
            id: 1,
            entry: EntryPoint::Heartbeat,
            caller: nobody,
            instructions_max: 1,
            slice: 1,
            system: SystemView {
                canister: nobody,
                subnet: nobody,
                time: 0,
                version: 0,
                status: RunStatus::Running,
                controllers: Vec::new(),
                balance: 1 << 90,
                freezing: Freezing::default(),
                cycles_available: 0,
                cycles_refunded: 0,
                deadline: 0,
                global_timer: 0,
                answered: false,
                answer_needed: false,
                call_context_instructions: 0,
                data_certificate: None,
                environment_variables: Vec::new(),
                root_key: Arc::from([]),
                wasm_memory_limit: 0,
                subnet_memory_available: 0,
                callbacks_free: 0,
                queue_taken: Vec::new(),
                log_capacity: 0,
                log_bytes_free: 0,
            },
            limits: Arc::new(limits),
        }
    }

    #[test]
    fn what_is_charged_is_what_the_prepayment_does_not_give_back() {
        for limits in [Limits::application(), Limits::system()] {
            for (memory64, used) in [(false, 0), (false, 1), (true, 999), (true, 1_234_567_891)] {
                let mut charged = invocation(limits.clone());
                charged.charge(memory64, used);
                let prepaid = limits.execution_price(memory64, limits.update_instructions);
                let given_back = |used| prepaid - limits.execution_price(memory64, used);
                let cost = given_back(0) - given_back(used);
                assert_eq!(charged.system.balance, (1 << 90) - cost, "{memory64} {used}");
                assert_eq!(cost == 0, used == 0 || limits.prices.instruction == 0);
            }
        }
    }
}
