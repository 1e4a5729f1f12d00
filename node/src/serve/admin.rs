//! The admin socket: the same interface with changes, for the node's user and root.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use tokio::sync::Semaphore;

use super::http;

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) uid: u32,
}

/// Binds the socket, for this user alone. One that an earlier process left is replaced.
pub(super) fn bind(path: &Path) -> Result<UnixListener, String> {
    let cannot = |what: &str, error: std::io::Error| format!("{}: could not {what}: {error}", path.display());
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(format!(
                "{}: is there already and is no socket; choose another path",
                path.display()
            ));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(format!("{}: another process listens on this admin socket", path.display()));
        }
        Ok(_) => std::fs::remove_file(path).map_err(|error| cannot("replace the admin socket", error))?,
        // Nothing is there, or what is wrong with the path makes the next line fail.
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(|error| cannot("listen on the admin socket", error))?;
    // Who connects before this line is looked at all the same.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| listener.set_nonblocking(true))
        .map_err(|error| cannot("keep the admin socket to its user", error))?;
    Ok(listener)
}

/// Answers on the socket until the process ends.
pub(super) async fn serve(listener: UnixListener, router: Router) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("could not listen on the admin socket: {error}"),
    };
    let us = rustix::process::geteuid().as_raw();
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await.expect("it is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                http::pause_after(&error).await;
                continue;
            }
        };
        match stream.peer_cred().map(|peer| peer.uid()) {
            Ok(uid) if uid == us || uid == 0 => {
                let router = router.clone().layer(axum::Extension(Peer { uid }));
                tokio::spawn(async move {
                    http::connection(stream, router).await;
                    drop(permit);
                });
            }
            Ok(uid) => tracing::warn!("user {uid} is not let in on the admin socket"),
            Err(error) => tracing::warn!("could not tell who connects to the admin socket: {error}"),
        }
    }
}
