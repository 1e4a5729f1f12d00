//! What the lockdown costs: a worker up to its LOAD lock, seen from outside, against the least program behind the same
//! launch; and what is left of it when one waits ahead.

use std::time::{Duration, Instant};

use bulkhead_node::image;
use execution::EntryPoint;
use in_process::{InProcess, InProcessOptions};
use sandbox_host::source::{LauncherSource, WorkerSource};
use sandbox_host::{SandboxOptions, Sandboxed};
use sandbox_os::verify::Phase;
use sandbox_os::{Launcher, Program};
use sandbox_protocol::{Assembly, Binding, PACKET_BYTES, ToNode, ToWorker, decode, encode, packets};

use super::{Bench, MOTOKO};
use crate::canister::Canister;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Timed, interleaved_timed, time};

const PATIENCE: Duration = Duration::from_secs(10);
const ROUNDS: usize = 101;

/// A static ELF program of 165 bytes that sends one byte to descriptor 3 and waits for signals.
fn least_program() -> Vec<u8> {
    const ADDRESS: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    #[rustfmt::skip]
    const CODE: [u8; 45] = [
        0xbf, 3, 0, 0, 0,             // mov edi, 3
        0xbe, 0, 0, 0x40, 0,          // mov esi, ADDRESS
        0xba, 1, 0, 0, 0,             // mov edx, 1
        0x41, 0xba, 0, 0x40, 0, 0,    // mov r10d, MSG_NOSIGNAL
        0x45, 0x31, 0xc0,             // xor r8d, r8d
        0x45, 0x31, 0xc9,             // xor r9d, r9d
        0xb8, 44, 0, 0, 0,            // mov eax, sendto
        0x0f, 0x05,                   // syscall
        0xb8, 34, 0, 0, 0,            // mov eax, pause
        0x0f, 0x05,                   // syscall
        0xeb, 0xf7, 0x90, 0x90,       // jmp to pause
    ];
    let bytes = HEADERS + CODE.len() as u64;
    let mut program = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // An executable for x86-64, version 1; entry; program headers behind this one; no sections.
    program.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    program.extend([ADDRESS + HEADERS, 64, 0].map(u64::to_le_bytes).concat());
    program.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // One segment, readable and executable: the whole file.
    program.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    program.extend([0, ADDRESS, ADDRESS, bytes, bytes, 0x1000].map(u64::to_le_bytes).concat());
    program.extend(CODE);
    program
}

/// Launches of that program, as a worker's.
pub(super) struct Least(Launcher);

impl Least {
    pub(super) fn new() -> Result<Self, String> {
        let launcher = Launcher::start(image::IMAGES.launcher, &[&least_program()]);
        launcher.map(Self).map_err(|error| error.to_string())
    }

    /// Nanoseconds from the request for a launch to the byte that the program sends. Its end is not timed.
    pub(super) fn launch(&self) -> Result<f64, String> {
        let mut started = None;
        let nanoseconds = time(|| {
            let process = self.0.launch(Program::Worker, false, None).map_err(|e| e.to_string())?;
            process.socket.receive(&mut [0; 8], PATIENCE).map_err(|e| e.to_string())?;
            started = Some(process);
            Ok(())
        });
        drop(started);
        nanoseconds
    }
}

/// From the request for a launch until the node may send code, against the same launch of the least program.
pub(super) fn lockdown(_: &Bench) -> Result<Vec<Finding>, String> {
    let bare = Least::new()?;
    let launchers = image::launchers().map_err(|e| e.to_string())?;
    let source = LauncherSource::new(launchers, u64::MAX, false);
    let mut least = || bare.launch();
    let mut worker = || {
        let mut started = None;
        let nanoseconds = time(|| {
            let process = source.launch().map_err(|e| e.to_string())?;
            begin(process.socket())?;
            process.verify(Phase::Load, &[]).map_err(|e| e.to_string())?;
            started = Some(process);
            Ok(())
        });
        drop(started);
        nanoseconds
    };
    let mut variants: [Timed<'_>; 2] = [&mut least, &mut worker];
    let samples = interleaved_timed(ROUNDS, &mut variants)?;
    Ok(vec![Finding::new(
        "lockdown",
        &Compared { limit: samples[0].median(), measured: samples[1].median(), unit: Unit::Time },
        Target::AtMost(1.5),
        samples[0].steady(),
        "from a launch to a worker in its LOAD lock, seen from outside, against a program of 165 bytes behind the same \
         namespaces, root, limits, users, Landlock and SETUP filter"
            .into(),
    )])
}

/// The first request to a worker, and its answer.
fn begin(socket: &sandbox_os::Socket) -> Result<(), String> {
    let binding = Binding { worker: 0, execution: 0, nonce: 1 };
    let mut frame = Vec::new();
    encode(binding, &ToWorker::Begin, &mut frame).map_err(|e| e.to_string())?;
    for packet in packets(&frame) {
        socket.send(packet, PATIENCE).map_err(|e| e.to_string())?;
    }
    let (mut reply, mut packet) = (Assembly::default(), vec![0; PACKET_BYTES]);
    loop {
        let bytes = socket.receive(&mut packet, PATIENCE).map_err(|e| e.to_string())?;
        if reply.push(&packet[..bytes]).map_err(|e| e.to_string())?.is_some() {
            return match decode(reply.body()).map_err(|e| e.to_string())? {
                ToNode::Ready => Ok(()),
                other => Err(format!("{other:?} instead of ready")),
            };
        }
    }
}

/// Waits until a worker is launched, in its lock, and serves nobody.
pub(super) fn wait_for_one_ahead(sandboxed: &Sandboxed) -> Result<(), String> {
    let start = Instant::now();
    while sandboxed.ready() == 0 {
        if start.elapsed() > PATIENCE {
            return Err("no worker was launched ahead".into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// The first message of a canister for which a worker waits ahead, less what the same costs in-process: loading the
/// module, making the instance, running.
pub(super) fn hand_over(bench: &Bench) -> Result<Vec<Finding>, String> {
    const STARTS: usize = 31;
    let options = SandboxOptions { pool: 1, ..SandboxOptions::default() };
    let sandboxed = Bench::sandboxed(options)?;
    let mut index = 0;
    let mut fresh = || {
        index += 1;
        Canister::new(&*bench.compiler, MOTOKO, index)
    };
    let mut ahead = || {
        let mut canister = fresh()?;
        wait_for_one_ahead(&sandboxed)?;
        let time = time(|| canister.run(&sandboxed, EntryPoint::Start).map(drop))?;
        // The next launch is not to lie beside what is measured next.
        wait_for_one_ahead(&sandboxed)?;
        Ok(time)
    };
    let mut here = {
        let mut index = 1_000;
        move || {
            index += 1;
            let mut canister = Canister::new(&*bench.compiler, MOTOKO, index)?;
            let cold = InProcess::new(bench.engine.clone(), &InProcessOptions::default());
            time(|| canister.run(&cold, EntryPoint::Start).map(drop))
        }
    };
    let mut variants: [Timed<'_>; 2] = [&mut ahead, &mut here];
    let samples = interleaved_timed(STARTS, &mut variants)?;
    let (ahead, here) = (samples[0].median(), samples[1].median());
    Ok(vec![Finding::new(
        "hand-over",
        &Compared { limit: 300e3, measured: (ahead - here).max(0.0), unit: Unit::Time },
        Target::AtMost(1.0),
        samples[1].steady(),
        format!(
            "first message of a canister on a worker that waited ahead {} less the same in-process {}",
            Unit::Time.show(ahead),
            Unit::Time.show(here)
        ),
    )])
}
