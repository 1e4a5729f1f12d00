//! In which context an entry point runs: what of the System API it may use.

use execution::EntryPoint;

/// A context of `canister-execution.md` section 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Context {
    /// `s`
    Start,
    /// `I`
    Init,
    /// `G`
    PreUpgrade,
    /// `U`
    Update,
    /// `RQ`
    ReplicatedQuery,
    /// `NRQ`
    Query,
    /// `TQ`
    Transform,
    /// `CQ`
    CompositeQuery,
    /// `Ry`
    Reply,
    /// `Rt`
    Reject,
    /// `CRy`
    CompositeReply,
    /// `CRt`
    CompositeReject,
    /// `C`
    Cleanup,
    /// `CC`
    CompositeCleanup,
    /// `F`
    Inspect,
    /// `T`
    Heartbeat,
    /// `T`
    GlobalTimer,
    /// `T`
    LowWasmMemory,
}

impl Context {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Start,
        Self::Init,
        Self::PreUpgrade,
        Self::Update,
        Self::ReplicatedQuery,
        Self::Query,
        Self::Transform,
        Self::CompositeQuery,
        Self::Reply,
        Self::Reject,
        Self::CompositeReply,
        Self::CompositeReject,
        Self::Cleanup,
        Self::CompositeCleanup,
        Self::Inspect,
        Self::Heartbeat,
        Self::GlobalTimer,
        Self::LowWasmMemory,
    ];

    /// The context of an entry point.
    #[must_use]
    pub fn of(entry: &EntryPoint) -> Self {
        match entry {
            EntryPoint::Start => Self::Start,
            EntryPoint::Init { .. } | EntryPoint::PostUpgrade { .. } => Self::Init,
            EntryPoint::PreUpgrade => Self::PreUpgrade,
            EntryPoint::InspectMessage { .. } => Self::Inspect,
            EntryPoint::Heartbeat => Self::Heartbeat,
            EntryPoint::GlobalTimer => Self::GlobalTimer,
            EntryPoint::LowWasmMemory => Self::LowWasmMemory,
            EntryPoint::Update { .. } => Self::Update,
            EntryPoint::ReplicatedQuery { .. } => Self::ReplicatedQuery,
            EntryPoint::Query { .. } => Self::Query,
            EntryPoint::Transform { .. } => Self::Transform,
            EntryPoint::CompositeQuery { .. } => Self::CompositeQuery,
            EntryPoint::Reply { composite: false, .. } => Self::Reply,
            EntryPoint::Reply { composite: true, .. } => Self::CompositeReply,
            EntryPoint::Reject { composite: false, .. } => Self::Reject,
            EntryPoint::Reject { composite: true, .. } => Self::CompositeReject,
            EntryPoint::Cleanup { composite: false, .. } => Self::Cleanup,
            EntryPoint::Cleanup { composite: true, .. } => Self::CompositeCleanup,
        }
    }

    /// The word for it in error texts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Init => "init",
            Self::PreUpgrade => "pre upgrade",
            Self::Update => "update",
            Self::ReplicatedQuery => "replicated query",
            Self::Query | Self::Transform => "non replicated query",
            Self::CompositeQuery => "composite query",
            Self::Reply => "reply callback",
            Self::Reject => "reject callback",
            Self::CompositeReply => "composite reply callback",
            Self::CompositeReject => "composite reject callback",
            Self::Cleanup => "cleanup",
            Self::CompositeCleanup => "composite cleanup",
            Self::Inspect => "inspect message",
            Self::Heartbeat => "heartbeat",
            Self::GlobalTimer => "global timer",
            Self::LowWasmMemory => "on low Wasm memory",
        }
    }

    /// Whether the context is inside a composite query.
    #[must_use]
    pub fn is_composite(self) -> bool {
        matches!(
            self,
            Self::CompositeQuery | Self::CompositeReply | Self::CompositeReject | Self::CompositeCleanup
        )
    }

    /// `in_replicated_execution`.
    #[must_use]
    pub fn is_replicated(self) -> bool {
        !self.is_composite() && !matches!(self, Self::Query | Self::Transform | Self::Inspect)
    }

    /// Whether `wasm_memory_limit` is enforced when the heap grows.
    #[must_use]
    pub fn enforces_memory_limit(self) -> bool {
        matches!(self, Self::Start | Self::Init | Self::Update)
    }

    /// Whether memory may grow only with the cycles to keep it: not where refusing would lose a
    /// response or an upgrade, nor where nothing is kept.
    #[must_use]
    pub fn growth_needs_cycles(self) -> bool {
        matches!(
            self,
            Self::Start
                | Self::Init
                | Self::Update
                | Self::ReplicatedQuery
                | Self::Heartbeat
                | Self::GlobalTimer
                | Self::LowWasmMemory
        )
    }

    /// Which of `Limits::stable_access_pages` holds.
    #[must_use]
    pub fn access_class(self) -> usize {
        match self {
            Self::Init | Self::PreUpgrade => 1,
            Self::ReplicatedQuery | Self::Query | Self::Transform | Self::Inspect => 2,
            _ if self.is_composite() => 2,
            _ => 0,
        }
    }
}

/// A set of contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contexts(u32);

impl Contexts {
    /// Of a list.
    #[must_use]
    pub const fn of(list: &[Context]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < list.len() {
            bits |= 1 << list[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `context` is one of them.
    #[must_use]
    pub const fn contains(self, context: Context) -> bool {
        self.0 & (1 << context as u8) != 0
    }
}
