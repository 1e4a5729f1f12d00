//! Error codes of the Internet Computer (`canister-execution.md` section 4.5).

use std::fmt;

/// An `ICnnnn` error code. Its first digit is the reject code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub u16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Whether this is a code of the table: a worker may claim no other.
            #[must_use]
            pub fn is_known(self) -> bool {
                matches!(self.0, $($number)|*)
            }
        }
    };
}

codes! {
    /// Subnet memory, compute or id range oversubscribed.
    SUBNET_OVERSUBSCRIBED = 101,
    /// Too many canisters.
    MAX_CANISTERS = 102,
    /// No more may wait for the canister now.
    QUEUE_FULL = 201,
    /// Ingress expired before execution.
    INGRESS_EXPIRED = 202,
    /// The canister's queues aren't empty.
    QUEUE_NOT_EMPTY = 203,
    /// Ingress history full.
    INGRESS_HISTORY_FULL = 204,
    /// The canister id already exists.
    CANISTER_ID_EXISTS = 205,
    /// `stop_canister` wasn't done in time.
    STOP_TIMED_OUT = 206,
    /// Not enough cycles, or frozen.
    OUT_OF_CYCLES = 207,
    /// Certified state unavailable.
    STATE_UNAVAILABLE = 208,
    /// `install_code` rate limited.
    INSTALL_RATE_LIMITED = 209,
    /// Heap delta rate limited.
    HEAP_DELTA_RATE_LIMITED = 210,
    /// Canister not found.
    CANISTER_NOT_FOUND = 301,
    /// Snapshot not found.
    SNAPSHOT_NOT_FOUND = 305,
    /// Memory allocation too small.
    INSUFFICIENT_MEMORY_ALLOCATION = 402,
    /// Too few cycles to create a canister.
    INSUFFICIENT_CYCLES_FOR_CREATE = 403,
    /// Subnet not found.
    SUBNET_NOT_FOUND = 404,
    /// Canister not hosted by this subnet.
    NOT_HOSTED = 405,
    /// Rejected by the canister, or a management call that this sender may not make.
    CANISTER_REJECTED = 406,
    /// Unknown management message.
    UNKNOWN_MANAGEMENT_MESSAGE = 407,
    /// Undecodable or invalid management argument.
    INVALID_MANAGEMENT_PAYLOAD = 408,
    /// The snapshot can't be changed.
    SNAPSHOT_IMMUTABLE = 409,
    /// WebAssembly trap.
    CANISTER_TRAPPED = 502,
    /// `ic0.trap`.
    CALLED_TRAP = 503,
    /// Violation of the canister contract.
    CONTRACT_VIOLATION = 504,
    /// Invalid module.
    INVALID_MODULE = 505,
    /// Did not reply.
    DID_NOT_REPLY = 506,
    /// Out of memory.
    OUT_OF_MEMORY = 507,
    /// Stopped.
    STOPPED = 508,
    /// Stopping.
    STOPPING = 509,
    /// Must be stopped first.
    NOT_STOPPED = 510,
    /// The stop was cancelled by a start.
    STOP_CANCELLED = 511,
    /// The caller is not a controller, or would delete itself.
    INVALID_CONTROLLER = 512,
    /// Callback index not in the table.
    FUNCTION_NOT_FOUND = 513,
    /// Install on a non-empty canister.
    NON_EMPTY = 514,
    /// Composite query: loop.
    QUERY_LOOP = 517,
    /// Insufficient cycles in a call.
    INSUFFICIENT_CYCLES_IN_CALL = 520,
    /// Engine error.
    WASM_ENGINE_ERROR = 521,
    /// Instruction limit exceeded.
    INSTRUCTION_LIMIT = 522,
    /// Memory access limit exceeded.
    MEMORY_ACCESS_LIMIT = 524,
    /// Composite query too deep.
    QUERY_TOO_DEEP = 525,
    /// Composite query: total instructions.
    QUERY_TOTAL_INSTRUCTIONS = 526,
    /// Composite query in replicated mode.
    COMPOSITE_QUERY_IN_REPLICATED_MODE = 527,
    /// Composite query: time.
    QUERY_TIME = 528,
    /// Composite query: internal.
    QUERY_INTERNAL = 529,
    /// Cycles: compute allocation.
    CYCLES_COMPUTE_ALLOCATION = 530,
    /// Cycles: memory allocation.
    CYCLES_MEMORY_ALLOCATION = 531,
    /// Cycles: memory growth.
    CYCLES_MEMORY_GROW = 532,
    /// Reserved cycles limit: allocation.
    RESERVED_LIMIT_ALLOCATION = 533,
    /// Reserved cycles limit: growth.
    RESERVED_LIMIT_GROW = 534,
    /// Cycles: message memory.
    CYCLES_MESSAGE_MEMORY = 535,
    /// Method not found.
    METHOD_NOT_FOUND = 536,
    /// No Wasm module.
    NO_WASM_MODULE = 537,
    /// Already installed.
    ALREADY_INSTALLED = 538,
    /// `wasm_memory_limit` exceeded.
    WASM_MEMORY_LIMIT = 539,
    /// Reserved cycles limit below the reserved balance.
    RESERVED_LIMIT_TOO_LOW = 540,
    /// The deadline of a best-effort call expired.
    DEADLINE_EXPIRED = 601,
    /// The response of a best-effort call was dropped.
    RESPONSE_DROPPED = 602,
}

impl ErrorCode {
    /// The reject code: 1 fatal, 2 transient, 3 destination, 4 canister reject, 5 canister error, 6 unknown.
    #[must_use]
    pub fn reject_code(self) -> u8 {
        u8::try_from(self.0 / 100).unwrap_or(u8::MAX)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IC{:04}", self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a user is told: a code and a description, apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {description}")]
pub struct UserError {
    /// The error code.
    pub code: ErrorCode,
    /// The description, at most 8 KiB.
    pub description: String,
}

impl UserError {
    /// An error with a description.
    #[must_use]
    pub fn new(code: ErrorCode, description: impl Into<String>) -> Self {
        Self { code, description: description.into() }
    }

    /// Whether an error with this code and description is none of the subnet's: the node could not run a query or
    /// an inspection, and another one, or the same a little later, may well answer.
    #[must_use]
    pub fn is_of_node(code: ErrorCode, description: &[u8]) -> bool {
        crate::text::is_unavailable(code, description)
    }
}
