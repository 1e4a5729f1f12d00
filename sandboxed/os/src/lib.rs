//! What the sandbox asks of the kernel: sockets, sealed images, launch, confinement, verification from
//! outside, page pull, placement, what memory and descriptors there are. Linux on x86-64 only. The one place
//! of the sandbox with `unsafe`.
//!
//! Order of a worker's life, each step in the file named:
//! `launch` (launcher: namespaces, empty root, rlimits, uid, Landlock, SETUP filter, exec of the sealed
//! image) -> `lockdown` (worker: one descriptor, no clock, LOAD filter) -> `verify` (node: from outside)
//! -> code and memory -> `lockdown` again (RUN filter) -> `verify` again -> messages.

pub mod attempt;
pub mod cgroup;
mod ended;
pub mod filter;
pub mod heap;
pub mod image;
mod inspect;
mod jail;
pub mod launch;
mod layers;
pub mod lockdown;
pub mod machine;
pub mod place;
pub mod privileges;
pub mod processor;
pub mod pull;
pub mod secret;
pub mod socket;
#[cfg(feature = "tsc")]
pub mod tsc;
pub mod verify;

pub use ended::Ended;
pub use launch::{LaunchError, LaunchedWorker, Launcher, Layer, Program};
pub use layers::Layers;
pub use socket::{PACKET_BYTES_MAX, PACKET_FILES_MAX, Socket, SocketError};
