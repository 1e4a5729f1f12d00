//! Replicated state: plain structs, cheap to clone, none of it serializable, none of it physical
//! unless a field says so.

mod calls;
mod canister;
mod ingress;
mod messages;
mod queue;
mod subnet;

pub use calls::{CallContext, Calls, Origin, PendingCall};
pub use canister::{
    CanisterState, Change, ChangeDetails, Code, History, Hook, InstallMode, Log, LogRecord, LogVisibility,
    Settings, Status, StopWaiter, TaskPointer,
};
pub use ingress::{Ingress, IngressRecord, IngressStatus, MessageId};
pub use messages::{CanisterMessage, Payload, Request, Response};
pub use queue::{Input, Inputs, PausedMessage, Source, Task};
pub use subnet::{IngressHistory, ManagementCall, Shared, SubnetConfig, SubnetState};
