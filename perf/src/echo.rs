//! The limit of a sandboxed message: a bare round trip over a socket between two processes on one core.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{CpuSet, Pid, sched_setaffinity};

/// The argument that makes this program the echoing peer.
pub(crate) const ROLE: &str = "echo-peer";

/// A peer process that answers each packet with one of a given size.
pub(crate) struct Peer {
    child: Child,
    socket: OwnedFd,
}

impl Peer {
    /// Starts the peer; it answers each packet with `reply_bytes` bytes.
    pub(crate) fn start(reply_bytes: usize) -> io::Result<Self> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let child = Command::new(std::env::current_exe()?)
            .args([ROLE, &reply_bytes.to_string()])
            .stdin(Stdio::from(theirs))
            .spawn()?;
        Ok(Self { child, socket: ours })
    }

    /// Puts the peer on `core`.
    pub(crate) fn pin(&self, core: usize) -> io::Result<()> {
        pin(Pid::from_child(&self.child), core)
    }

    /// One round trip: sends `request`, waits for the answer.
    pub(crate) fn round_trip(&self, request: &[u8], answer: &mut [u8]) -> io::Result<()> {
        rustix::net::send(&self.socket, request, SendFlags::NOSIGNAL)?;
        rustix::net::recv(&self.socket, answer, RecvFlags::empty())?;
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts a process (or, with `None`, the calling thread) on one core.
pub(crate) fn pin(process: impl Into<Option<Pid>>, core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(process.into(), &set)?)
}

/// The peer's side: answers until the other end closes.
pub(crate) fn serve() -> ExitCode {
    let Some(bytes) = std::env::args().nth(2).and_then(|text| text.parse::<usize>().ok()) else {
        return ExitCode::from(2);
    };
    let stdin = io::stdin();
    let answer = vec![0u8; bytes.clamp(1, 1 << 16)];
    let mut request = vec![0u8; 1 << 16];
    loop {
        match rustix::net::recv(&stdin, &mut request[..], RecvFlags::empty()) {
            Ok((0, _)) | Err(_) => return ExitCode::SUCCESS,
            Ok(_) => {}
        }
        if rustix::net::send(&stdin, &answer, SendFlags::NOSIGNAL).is_err() {
            return ExitCode::SUCCESS;
        }
    }
}
