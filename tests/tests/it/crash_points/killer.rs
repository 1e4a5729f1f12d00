//! Real workers behind a relay, which sees every request and reply and kills the process where it is told to.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use execution::BackendError;
use sandbox_host::source::{LauncherSource, WorkerProcess, WorkerSource};
use sandbox_os::pull::{PullError, Span};
use sandbox_os::verify::{NotConfined, Phase};
use sandbox_os::{Ended, PACKET_BYTES_MAX, Socket, SocketError};
use sandbox_protocol::{Assembly, ToWorker, decode};

use crate::processes::{self, Activity};

/// What the node asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Begin,
    Load,
    Lock,
    Execute,
    Resume,
}

/// When a worker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before the request reaches it.
    Before,
    /// When it has the request; its answer is lost.
    Underway,
    /// Seen running.
    Running,
    /// When it has answered, before the node has the answer and looks at it or takes its pages.
    Answered,
    /// When some of its pages have been copied.
    InThePull,
    /// When the node has all that it asked for.
    Idle,
}

/// Who kills, where and how often.
#[derive(Debug, Default)]
pub(super) struct Killer(Mutex<Option<(Request, Moment, usize)>>);

impl Killer {
    pub(super) fn arm(&self, request: Request, moment: Moment, deaths: usize) {
        *self.0.lock().unwrap() = Some((request, moment, deaths));
    }

    /// Deaths that are still to come.
    pub(super) fn left(&self) -> usize {
        self.0.lock().unwrap().map_or(0, |(.., deaths)| deaths)
    }

    /// Whether a worker is to die here, counted.
    fn strikes(&self, request: Request, moment: Moment) -> bool {
        let mut armed = self.0.lock().unwrap();
        match &mut *armed {
            Some((at, when, deaths)) if (*at, *when) == (request, moment) && *deaths > 0 => {
                *deaths -= 1;
                true
            }
            _ => false,
        }
    }

    fn pass(&self, pid: i32, request: Request, moment: Moment) {
        if self.strikes(request, moment) {
            processes::kill(pid.cast_unsigned());
        }
    }
}

pub(super) struct Killing {
    pub(super) source: LauncherSource,
    pub(super) killer: Arc<Killer>,
}

impl WorkerSource for Killing {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        let process = self.source.launch()?;
        let (node, relayed) = Socket::pair().expect("sockets can be had");
        let worker = Socket::from(process.socket().as_fd().try_clone_to_owned().expect("a descriptor"));
        let relay = Relay { node: relayed, worker, pid: process.pid(), killer: Arc::clone(&self.killer) };
        std::thread::spawn(move || {
            // Either end may close at any time: that is what the other one is told.
            let _closed = relay.run();
        });
        Ok(Box::new(Killable { process, socket: node, killer: Arc::clone(&self.killer) }))
    }

    fn private_bytes(&self, pid: i32) -> Option<u64> {
        self.source.private_bytes(pid)
    }
}

struct Relay {
    node: Socket,
    worker: Socket,
    pid: i32,
    killer: Arc<Killer>,
}

impl Relay {
    fn run(&self) -> Result<(), SocketError> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        let mut frame = Assembly::default();
        loop {
            // A request, whole, before any of it goes on.
            frame.restart();
            let mut held = Vec::new();
            loop {
                let (bytes, files) = self.node.receive_with_files(&mut packet)?;
                held.push((packet[..bytes].to_vec(), files));
                if frame.push(&packet[..bytes]).expect("the node's frames are right").is_some() {
                    break;
                }
            }
            let request = match decode(frame.body()).expect("the node's messages are right") {
                ToWorker::Begin => Request::Begin,
                ToWorker::Load(_) => Request::Load,
                ToWorker::Lock => Request::Lock,
                ToWorker::Execute(_) => Request::Execute,
                ToWorker::Resume { .. } => Request::Resume,
                ToWorker::Pages(_) => panic!("root reads a worker's memory"),
                ToWorker::Attempt(_) => panic!("a report asks for it, and there is none"),
            };
            let pass = |moment| self.killer.pass(self.pid, request, moment);
            pass(Moment::Before);
            for (bytes, files) in held {
                let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
                self.worker.send_with_files(&bytes, &files)?;
            }
            if self.killer.strikes(request, Moment::Underway) {
                processes::kill(self.pid.cast_unsigned());
                return Ok(());
            }
            if self.killer.strikes(request, Moment::Running) {
                let mut activity = Activity::of_process(self.pid.cast_unsigned());
                processes::wait_until("the worker runs", || activity.is_seen().then_some(()));
                assert!(processes::kill(self.pid.cast_unsigned()), "it ran");
                return Ok(());
            }
            // The reply, whole.
            frame.restart();
            let mut held = Vec::new();
            loop {
                let bytes = self.worker.receive_blocking(&mut packet)?;
                held.push(packet[..bytes].to_vec());
                if frame.push(&packet[..bytes]).expect("a correct worker's frames are right").is_some() {
                    break;
                }
            }
            pass(Moment::Answered);
            for bytes in held {
                self.node.send_blocking(&bytes)?;
            }
        }
    }
}

#[derive(Debug)]
struct Killable {
    process: Box<dyn WorkerProcess>,
    socket: Socket,
    killer: Arc<Killer>,
}

impl WorkerProcess for Killable {
    fn pid(&self) -> i32 {
        self.process.pid()
    }

    fn socket(&self) -> &Socket {
        &self.socket
    }

    fn layers(&self) -> Vec<(&'static str, bool)> {
        self.process.layers()
    }

    fn verify(&self, phase: Phase, memory: &[Range<u64>]) -> Result<(), NotConfined> {
        self.process.verify(phase, memory)
    }

    fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        self.process.limit_memory(bytes)
    }

    fn pull(&self, from: &[Span], mut into: Vec<&mut [u8]>) -> Result<(), PullError> {
        if self.killer.strikes(Request::Execute, Moment::InThePull) {
            let mut first = vec![0; from[0].bytes];
            self.process.pull(&from[..1], vec![&mut first])?;
            // As far as the copy has come.
            let fits = first.len().min(into[0].len());
            into[0][..fits].copy_from_slice(&first[..fits]);
            processes::kill(self.pid().cast_unsigned());
        }
        self.process.pull(from, into)?;
        // The last that the node wants of it for this message.
        self.killer.pass(self.pid(), Request::Execute, Moment::Idle);
        Ok(())
    }

    fn place(&self, core: usize) {
        self.process.place(core);
    }

    fn processor_time(&self) -> Option<sandbox_os::processor::Spent> {
        self.process.processor_time()
    }

    fn stand_behind(&self, behind: bool) -> bool {
        self.process.stand_behind(behind)
    }

    fn kill(&mut self) -> Ended {
        self.process.kill()
    }
}
