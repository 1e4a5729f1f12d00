//! Replicated state: plain structs, cheap to clone, none of it serializable, none of it physical
//! unless a field says so.

mod calls;
mod canister;
mod canister_snapshot;
mod chunks;
mod debit;
mod ingress;
mod messages;
mod queue;
mod subnet;

pub use calls::{CALLBACKS_GUARANTEED, CallContext, Calls, Origin, PendingCall};
pub use canister::{
    CanisterState, Change, ChangeDetails, Code, History, Hook, InstallMode, Log, LogRecord, Settings, Status,
    StopWaiter, TaskPointer, Visibility,
};
pub use canister_snapshot::{CanisterSnapshot, CanisterSnapshots, SNAPSHOTS_MAX, SnapshotId};
pub use chunks::{CHUNK_BYTES_MAX, CHUNKS_MAX, ChunkHash, ChunkStore};
pub use debit::Debit;
pub use ingress::{Ingress, IngressRecord, IngressStatus, MessageId};
pub use messages::{CanisterMessage, Payload, Request, Response};
pub use queue::{Input, Inputs, Install, PausedMessage, Source, Start, Task, UpgradeOptions};
pub use subnet::{
    IngressHistory, ManagementCall, PendingManagement, Receiver, Shared, SubnetConfig, SubnetState,
};
