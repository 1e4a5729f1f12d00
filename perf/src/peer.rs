//! A peer process: this same program in another role, at the other end of a socket. It does with bare system
//! calls what a worker does with the product's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::Pid;
use sandbox_os::tsc;

use crate::contention::Workload;
use crate::hops;
use crate::kernel::{self, Mapping, MemoryFile};
use crate::mailbox;
use crate::placement::pin;

/// The argument that makes this program a peer.
pub(crate) const ROLE: &str = "benchmark-peer";
/// Bytes of a memory peer's answer: where its mapping lies, and the sum of what it read.
const MEMORY_ANSWER_BYTES: usize = 16;

/// Bytes of a working peer's answer.
const RATE_BYTES: usize = size_of::<f64>();

/// What a peer does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// Answers each packet with one of so many bytes.
    Echo(usize),
    /// The same, with clock and speculation shut off as a worker's are.
    ConfinedEcho(usize),
    /// Writes and reads a private mapping of so many pages.
    Memory(usize),
    /// The other side of [`crate::hops`].
    Hops,
    /// The other side of [`crate::mailbox`], with this process's file of such a number.
    Mailbox(usize),
    /// Does the same on the cores that it is told, and counts.
    Work(Workload),
}

impl Role {
    /// Its name, its number if it has one, and its kind of socket.
    fn start(self) -> (&'static str, usize, SocketType) {
        match self {
            Self::Echo(bytes) => ("echo", bytes, SocketType::SEQPACKET),
            Self::ConfinedEcho(bytes) => ("confined-echo", bytes, SocketType::SEQPACKET),
            Self::Memory(pages) => ("memory", pages, SocketType::SEQPACKET),
            Self::Hops => ("hops", 0, SocketType::STREAM),
            Self::Mailbox(file) => ("mailbox", file, SocketType::SEQPACKET),
            Self::Work(workload) => ("work", workload.number(), SocketType::SEQPACKET),
        }
    }
}

/// What is asked of a [`Role::Memory`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// Write every word; for the first time, or since `Forget`, each page faults and is copied.
    Write,
    /// Read every word.
    Read,
    /// Give up all copies.
    Forget,
}

/// A peer process; killed when dropped.
pub(crate) struct Peer {
    child: Child,
    socket: OwnedFd,
}

impl Peer {
    /// Starts one.
    pub(crate) fn start(role: Role) -> Result<Self, String> {
        let (name, number, kind) = role.start();
        tsc::open();
        let start = || {
            let family = AddressFamily::UNIX;
            let (socket, theirs) = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
            let child = Command::new(std::env::current_exe()?)
                .args([ROLE, name, &number.to_string()])
                .stdin(Stdio::from(theirs))
                .spawn()?;
            Ok(Self { child, socket })
        };
        start().map_err(|error: io::Error| format!("{name} peer: {error}"))
    }

    /// This end of its socket.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_pid()
    }

    /// Puts the peer on `core`.
    pub(crate) fn pin(&self, core: usize) -> Result<(), String> {
        pin(Pid::from_child(&self.child), core)
    }

    /// One round trip: sends `request`, waits for the answer.
    pub(crate) fn round_trip(&self, request: &[u8], answer: &mut [u8]) -> Result<(), String> {
        tsc::open();
        self.ask(request)?;
        self.answer(answer)
    }

    /// One round trip as the product makes it: without the time-stamp counter where that pays.
    pub(crate) fn round_trip_without_counter(&self, request: &[u8], answer: &mut [u8]) -> Result<(), String> {
        tsc::shut_if_it_pays();
        self.ask(request)?;
        self.answer(answer)
    }

    fn ask(&self, request: &[u8]) -> Result<(), String> {
        rustix::net::send(&self.socket, request, SendFlags::NOSIGNAL).map(drop).map_err(failed)
    }

    fn answer(&self, answer: &mut [u8]) -> Result<(), String> {
        match rustix::net::recv(&self.socket, answer, RecvFlags::empty()).map_err(failed)? {
            (0, _) => Err("a peer is gone".into()),
            _ => Ok(()),
        }
    }

    /// Has a [`Role::Work`] begin to work on each of `cores`; [`Peer::rate`] waits for it.
    pub(crate) fn begin_work(&self, cores: &[usize]) -> Result<(), String> {
        self.ask(&cores.iter().flat_map(|core| core.to_ne_bytes()).collect::<Vec<_>>())
    }

    /// Messages a second of a [`Role::Work`] that was told to begin.
    pub(crate) fn rate(&self) -> Result<f64, String> {
        let mut answer = [0; RATE_BYTES];
        self.answer(&mut answer)?;
        Ok(f64::from_ne_bytes(answer))
    }

    /// Has a [`Role::Memory`] do `task`. Returns the address of its mapping.
    pub(crate) fn run(&self, task: Task) -> Result<u64, String> {
        let request = match task {
            Task::Write => b"w",
            Task::Read => b"r",
            Task::Forget => b"f",
        };
        let mut answer = [0; MEMORY_ANSWER_BYTES];
        self.round_trip(request, &mut answer)?;
        let (address, _sum) = answer.split_first_chunk().expect("longer than an address");
        Ok(u64::from_ne_bytes(*address))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failed(error: rustix::io::Errno) -> String {
    format!("a peer: {error}")
}

/// The peer's side: serves until the other end closes.
pub(crate) fn serve() -> ExitCode {
    let mut words = std::env::args().skip(2);
    let (role, number) = (words.next(), words.next().and_then(|text| text.parse::<usize>().ok()));
    let served = match (role.as_deref(), number) {
        (Some("echo"), Some(bytes)) => echo(bytes),
        (Some("confined-echo"), Some(bytes)) => {
            kernel::shut_off_clock_and_speculation();
            echo(bytes)
        }
        (Some("memory"), Some(pages)) => serve_memory(pages),
        (Some("hops"), Some(_)) => hops::serve(),
        (Some("mailbox"), Some(file)) => mailbox::serve(file),
        (Some("work"), Some(number)) => match Workload::numbered(number) {
            Some(workload) => serve_work(workload),
            None => return ExitCode::from(2),
        },
        _ => return ExitCode::from(2),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf, as a peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn echo(bytes: usize) -> Result<(), String> {
    answer_all(bytes.clamp(1, 1 << 16), |_, _| Ok(()))
}

fn serve_work(workload: Workload) -> Result<(), String> {
    answer_all(RATE_BYTES, |request, answer| {
        let (cores, _) = request.as_chunks();
        let cores: Vec<_> = cores.iter().map(|core| usize::from_ne_bytes(*core)).collect();
        answer.copy_from_slice(&workload.rate(&cores)?.to_ne_bytes());
        Ok(())
    })
}

fn serve_memory(pages: usize) -> Result<(), String> {
    let mut mapping = Mapping::private(&MemoryFile::filled(pages)?)?;
    let mut value = 0_u64;
    answer_all(MEMORY_ANSWER_BYTES, |request, answer| {
        let mut sum = 0;
        match request {
            b"w" => {
                value += 1;
                mapping.words_mut().fill(value);
            }
            b"r" => sum = mapping.words().iter().fold(0_u64, |sum, word| sum.wrapping_add(*word)),
            b"f" => mapping.forget(0, pages)?,
            _ => return Err("an unknown task".into()),
        }
        answer[..8].copy_from_slice(&(mapping.address() as u64).to_ne_bytes());
        answer[8..].copy_from_slice(&sum.to_ne_bytes());
        Ok(())
    })
}

/// Answers each packet with one of `bytes` bytes, which `answer` fills.
fn answer_all(
    bytes: usize,
    mut answer: impl FnMut(&[u8], &mut [u8]) -> Result<(), String>,
) -> Result<(), String> {
    let stdin = io::stdin();
    let mut request = vec![0; 1 << 16];
    let mut reply = vec![0; bytes];
    loop {
        let count = match rustix::net::recv(&stdin, &mut request[..], RecvFlags::empty()) {
            Ok((0, _)) | Err(_) => return Ok(()),
            Ok((count, _)) => count,
        };
        answer(&request[..count], &mut reply)?;
        if rustix::net::send(&stdin, &reply, SendFlags::NOSIGNAL).is_err() {
            return Ok(());
        }
    }
}
