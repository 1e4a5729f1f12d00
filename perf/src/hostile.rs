//! A worker that isn't one: this same program in another role, confined by nothing, that says what a worker says until
//! it is given a message.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use execution::BackendError;
use rustix::process::Pid;
use sandbox_host::source::{WorkerProcess, WorkerSource};
use sandbox_os::pull::{PullError, Span};
use sandbox_os::verify::{NotConfined, Phase};
use sandbox_os::{Ended, Socket, SocketError, place, processor};
use sandbox_protocol::{
    Assembly, Binding, Bytes, FRAME_BYTES_MAX, HEADER_BYTES, Loaded, PACKET_BYTES, ToNode, encode, packets,
};

/// The argument that makes this program a hostile worker.
pub(crate) const ROLE: &str = "benchmark-hostile-worker";
const PATIENCE: Duration = Duration::from_secs(10);

/// What it does with its first message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    /// Answers with the longest frame there can be, and then with more packets until it is ended.
    Flood,
    /// Ends.
    Die,
}

/// Starts them.
pub(crate) struct Hostile(pub(crate) Deed);

struct Process {
    child: Child,
    socket: Socket,
}

impl WorkerSource for Hostile {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        let deed = match self.0 {
            Deed::Flood => "flood",
            Deed::Die => "die",
        };
        let start = || -> io::Result<Process> {
            let (socket, theirs) = Socket::pair().map_err(io::Error::other)?;
            sandbox_os::tsc::open();
            let child = Command::new(std::env::current_exe()?)
                .args([ROLE, deed])
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .spawn()?;
            Ok(Process { child, socket })
        };
        match start() {
            Ok(process) => Ok(Box::new(process)),
            Err(error) => Err(BackendError::Spawn(error.to_string())),
        }
    }

    fn private_bytes(&self, _: i32) -> Option<u64> {
        None
    }
}

impl WorkerProcess for Process {
    fn pid(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_pid()
    }

    fn socket(&self) -> &Socket {
        &self.socket
    }

    fn layers(&self) -> Vec<(&'static str, bool)> {
        Vec::new()
    }

    fn verify(&self, _: Phase, _: &[Range<u64>]) -> Result<(), NotConfined> {
        Ok(())
    }

    fn pull(&self, _: &[Span], _: Vec<&mut [u8]>) -> Result<(), PullError> {
        Err(PullError::Gone)
    }

    fn place(&self, core: usize) {
        // Only the figures depend on it.
        let _ = place::pin(Pid::from_child(&self.child), core);
    }

    fn processor_time(&self) -> Option<sandbox_os::processor::Spent> {
        processor::spent(self.pid()).ok()
    }

    fn stand_behind(&self, behind: bool) -> bool {
        processor::behind(self.pid(), behind).is_ok()
    }

    fn kill(&mut self) -> Ended {
        // It may be gone already.
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ended::Exited(code),
                (None, Some(signal)) => Ended::Signal(signal),
                (None, None) => Ended::Unknown,
            },
            Err(_) => Ended::Unknown,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

/// The hostile worker's side.
pub(crate) fn serve() -> ExitCode {
    let deed = match std::env::args().nth(2).as_deref() {
        Some("flood") => Deed::Flood,
        Some("die") => Deed::Die,
        _ => return ExitCode::from(2),
    };
    // As a worker, so that the kernel groups it as one.
    let _ = rustix::process::setsid();
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::from(2) };
    let _node_is_gone = misbehave(&Socket::from(socket), deed);
    ExitCode::SUCCESS
}

fn misbehave(socket: &Socket, deed: Deed) -> Result<(), SocketError> {
    let mut packet = vec![0; PACKET_BYTES];
    for reply in [ToNode::Ready, ToNode::Loaded(Loaded { heap: 1 << 30, stable: 1 << 40 }), ToNode::Locked] {
        let binding = receive(socket, &mut packet)?;
        send(socket, binding, &reply)?;
    }
    let binding = receive(socket, &mut packet)?;
    match deed {
        Deed::Die => Ok(()),
        Deed::Flood => {
            // As much as a frame may hold, less what the length of the bytes takes.
            let bytes = vec![0; FRAME_BYTES_MAX - HEADER_BYTES - 16];
            loop {
                send(socket, binding, &ToNode::Pages(Bytes(&bytes)))?;
            }
        }
    }
}

fn receive(socket: &Socket, packet: &mut [u8]) -> Result<Binding, SocketError> {
    let mut request = Assembly::default();
    loop {
        let (bytes, _files) = socket.receive_with_files(packet)?;
        match request.push(&packet[..bytes]) {
            Ok(Some(binding)) => return Ok(binding),
            Ok(None) => {}
            Err(_) => return Err(SocketError::Closed),
        }
    }
}

fn send(socket: &Socket, binding: Binding, message: &ToNode<'_>) -> Result<(), SocketError> {
    let mut frame = Vec::new();
    encode(binding, message, &mut frame).map_err(|_| SocketError::Closed)?;
    packets(&frame).try_for_each(|packet| socket.send(packet, PATIENCE))
}
