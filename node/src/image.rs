//! The programs carried inside this one: no worker binary that can be missing or of another version.

use std::sync::{Arc, Mutex, PoisonError};

use execution::BackendError;
use sandbox_host::{Images, Launchers};

/// The sandbox's programs, static: the worker is without a compiler.
pub static IMAGES: Images =
    Images { launcher: include_bytes!(env!("LAUNCHER_IMAGE")), worker: include_bytes!(env!("WORKER_IMAGE")) };

/// The launchers of this process, started at the first call. All nodes in it share them.
///
/// # Errors
/// [`BackendError::Spawn`] or [`BackendError::Exhausted`].
pub fn launchers() -> Result<Arc<Launchers>, BackendError> {
    static LAUNCHERS: Mutex<Option<Arc<Launchers>>> = Mutex::new(None);
    let mut launchers = LAUNCHERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(launchers) = &*launchers {
        return Ok(Arc::clone(launchers));
    }
    Ok(Arc::clone(launchers.insert(Launchers::start(IMAGES)?)))
}
