//! Every replicated limit and price, with named presets (`canister-execution.md` sections 1.2, 3.4, 3.6).
//! They may change results, so they are part of the replicated input and never a node's choice.

use crate::{Cycles, Instructions};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Limits that are the same on every node of a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whether this is a system subnet: no cycles are charged, larger instruction limits.
    pub system_subnet: bool,
    /// Instructions of one update, replicated query, callback or task.
    pub update_instructions: Instructions,
    /// Instructions of one non-replicated query, and of a composite query's whole graph.
    pub query_instructions: Instructions,
    /// Instructions of `canister_inspect_message`.
    pub inspect_instructions: Instructions,
    /// Instructions of an install, reinstall or upgrade, all entry points and compilation together.
    pub install_instructions: Instructions,
    /// Instructions of one slice: a message that has used them pauses until the next round.
    pub slice_instructions: Instructions,
    /// Messages that may be paused at the end of a round. Those that began last are aborted beyond that, and begin
    /// again when there is room.
    pub paused_messages: usize,
    /// Share of a callback's budget kept for cleanup, in percent.
    pub cleanup_percent: u64,
    /// Price of `upload_chunk`, in instructions.
    pub upload_chunk_instructions: Instructions,
    /// Price of taking or loading a snapshot besides one for each byte, in instructions.
    pub snapshot_instructions: Instructions,
    /// Instructions of installs that a canister is forgiven in each round; while it owes more, installs are
    /// refused with IC0209. `None`: not limited.
    pub install_rate: Option<Instructions>,
    /// Bytes that a canister may write in each round (pages of record, chunks, loaded snapshots). Who wrote more
    /// waits; what would write more then is refused with IC0210. `None`: not limited.
    pub heap_delta_rate: Option<u64>,
    /// Instructions a canister may use in one round before it waits for the next. Those that are
    /// active when a round begins have four times that together, and so have those that become active in it; the last
    /// message of each may go beyond. What some leave the others get.
    pub round_instructions: Instructions,
    /// Heap of a 32-bit canister, bytes.
    pub heap32_bytes: u64,
    /// Heap of a 64-bit canister, bytes.
    pub heap64_bytes: u64,
    /// Stable memory, bytes.
    pub stable_bytes: u64,
    /// Memory of all canisters of the subnet, bytes.
    pub subnet_memory_bytes: u64,
    /// Compute allocations of all canisters of the subnet, percent.
    pub subnet_compute_percent: u64,
    /// Ingress argument and replicated reply, bytes.
    pub payload_bytes: u64,
    /// Method name and argument of a call on the same subnet, bytes.
    pub call_payload_bytes: u64,
    /// Reply of a non-replicated query, bytes.
    pub query_reply_bytes: u64,
    /// Method name in `call_new`, bytes.
    pub method_name_bytes: u64,
    /// Messages in the queue of one pair of canisters, each direction.
    pub queue_length: usize,
    /// Ingress messages waiting for one canister.
    pub ingress_queue_length: usize,
    /// Bytes of the ingress messages of all canisters that wait or run. One canister may have 64 KiB, and beyond that
    /// no more than it leaves for the others.
    pub ingress_waiting_bytes: u64,
    /// Ingress messages that are remembered: those not answered, and for 5 minutes the ids of those that are, so that
    /// none runs twice. One canister may have 100, and beyond that no more than it leaves for the others.
    pub ingress_history_length: usize,
    /// Bytes of the answers that are kept for as long. Beyond, the oldest are forgotten.
    pub ingress_answer_bytes: u64,
    /// Callback slots that canisters share once their own 50 are taken.
    pub callbacks_shared: usize,
    /// Messages between canisters that wait, and what is kept free for responses, of the whole subnet, bytes.
    pub message_memory_bytes: u64,
    /// Management calls that wait for the host to answer them.
    pub pending_management_calls: usize,
    /// Outgoing calls that one message may make, over all callees.
    pub calls_per_message: usize,
    /// Method names and arguments of all calls of one message, bytes: `call_perform` refuses more. Keeps
    /// every outcome within one frame of a sandbox worker (64 MiB).
    pub calls_bytes: u64,
    /// Stable pages (4 KiB) touched or dirtied: update/task/callback/start; init and upgrade hooks; queries.
    pub stable_access_pages: [u64; 3],
    /// Nodes of the subnet: fees are on a 13-node base.
    pub nodes: u32,
    /// Prices.
    pub prices: Prices,
}

/// Prices for 13 nodes, in cycles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices {
    /// Each message.
    pub message: Cycles,
    /// Each instruction (doubled for 64-bit canisters).
    pub instruction: Cycles,
    /// Each ingress message.
    pub ingress: Cycles,
    /// Each byte of an ingress message.
    pub ingress_byte: Cycles,
    /// Each call.
    pub call: Cycles,
    /// Each byte of a call's method name, argument and reply.
    pub call_byte: Cycles,
    /// Each GiB of storage for each second.
    pub storage_gib_second: Cycles,
    /// Each percent of compute allocation for each second.
    pub compute_percent_second: Cycles,
    /// Creating a canister.
    pub create: Cycles,
}

impl Limits {
    /// An Internet Computer application subnet of 13 nodes, but for its rate limits: they only delay, and
    /// whoever develops canisters installs one version after another. [`Limits::rate_limited`] adds them.
    #[must_use]
    pub fn application() -> Self {
        Self {
            system_subnet: false,
            update_instructions: 40_000_000_000,
            query_instructions: 5_000_000_000,
            inspect_instructions: 200_000_000,
            install_instructions: 300_000_000_000,
            slice_instructions: 2_000_000_000,
            paused_messages: 40,
            cleanup_percent: 5,
            upload_chunk_instructions: 200_000_000,
            snapshot_instructions: 2_000_000_000,
            install_rate: None,
            heap_delta_rate: None,
            round_instructions: 7_000_000_000,
            heap32_bytes: 4 * GIB,
            heap64_bytes: 6 * GIB,
            stable_bytes: 500 * GIB,
            subnet_memory_bytes: 2048 * GIB,
            subnet_compute_percent: 300,
            payload_bytes: 2 * MIB,
            call_payload_bytes: 10 * MIB,
            query_reply_bytes: 3 * MIB,
            method_name_bytes: 20_000,
            queue_length: 500,
            ingress_queue_length: 1_000,
            ingress_waiting_bytes: 2 * GIB,
            ingress_history_length: 2_000_000,
            ingress_answer_bytes: 2 * GIB,
            callbacks_shared: 1_000_000,
            message_memory_bytes: 15 * GIB,
            pending_management_calls: 3_000,
            calls_per_message: 100_000,
            calls_bytes: 48 * MIB,
            stable_access_pages: [2 * GIB / 4096, 8 * GIB / 4096, GIB / 4096],
            nodes: 13,
            prices: Prices {
                message: 5_000_000,
                instruction: 1,
                ingress: 1_200_000,
                ingress_byte: 2_000,
                call: 260_000,
                call_byte: 1_000,
                storage_gib_second: 127_000,
                compute_percent_second: 10_000_000,
                create: 500_000_000_000,
            },
        }
    }

    /// The same with the rate limits of an application subnet (`canister-execution.md` section 4.7).
    #[must_use]
    pub fn rate_limited(self) -> Self {
        Self { install_rate: Some(2_000_000_000), heap_delta_rate: Some(75 * MIB), ..self }
    }

    /// An Internet Computer system subnet: nothing is charged, higher instruction limits.
    #[must_use]
    pub fn system() -> Self {
        Self {
            system_subnet: true,
            update_instructions: 50_000_000_000,
            install_instructions: 1_000_000_000_000,
            slice_instructions: 10_000_000_000,
            prices: Prices {
                message: 0,
                instruction: 0,
                ingress: 0,
                ingress_byte: 0,
                call: 0,
                call_byte: 0,
                storage_gib_second: 0,
                compute_percent_second: 0,
                create: 0,
            },
            ..Self::application()
        }
    }

    /// Price of a message that uses `instructions`: what is prepaid for a run and what it is charged.
    #[must_use]
    pub fn execution_price(&self, memory64: bool, instructions: Instructions) -> Cycles {
        let factor = if memory64 { 2 } else { 1 };
        let price = self.prices.instruction.saturating_mul(Cycles::from(instructions)).saturating_mul(factor);
        self.scaled(self.prices.message.saturating_add(price))
    }

    /// Price of `instructions` of a message whose base fee is paid elsewhere.
    #[must_use]
    pub fn instruction_price(&self, instructions: Instructions) -> Cycles {
        self.scaled(self.prices.instruction.saturating_mul(Cycles::from(instructions)))
    }

    /// Fee of a call whose method name and argument have `bytes` bytes.
    #[must_use]
    pub fn call_fee(&self, bytes: u64) -> Cycles {
        self.scaled(self.prices.call.saturating_add(self.transmission(bytes)))
    }

    /// What a call sets aside for the bytes of its response.
    #[must_use]
    pub fn response_reservation(&self) -> Cycles {
        self.response_price(self.payload_bytes)
    }

    /// Price of a response of `bytes` bytes.
    #[must_use]
    pub fn response_price(&self, bytes: u64) -> Cycles {
        self.scaled(self.transmission(bytes))
    }

    /// Price of taking in an ingress message of `bytes` bytes.
    #[must_use]
    pub fn ingress_fee(&self, bytes: u64) -> Cycles {
        let bytes = self.prices.ingress_byte.saturating_mul(Cycles::from(bytes));
        self.scaled(self.prices.ingress.saturating_add(bytes))
    }

    fn transmission(&self, bytes: u64) -> Cycles {
        self.prices.call_byte.saturating_mul(Cycles::from(bytes))
    }

    /// A price of the 13-node base on this subnet's number of nodes.
    #[must_use]
    pub fn scaled(&self, price: Cycles) -> Cycles {
        price.saturating_mul(Cycles::from(self.nodes)) / 13
    }
}

/// Slices that a message of at most `limit` instructions may take (`canister-execution.md` section 3.4). No two in a
/// row use less than a slice together, so a message comes to its limit before this, unless a slice is less than a
/// two-hundredth of the limit.
#[must_use]
pub fn slices_max(limit: Instructions, slice: Instructions) -> u64 {
    limit.checked_div(slice).unwrap_or(0).saturating_mul(2).clamp(4, 400)
}
