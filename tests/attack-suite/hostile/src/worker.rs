//! A worker under complete control of an attacker: the real start and the real locks, as far as its plan doesn't leave
//! them out, and then whatever it is told. `confinement` section 5, method 1.

use std::hint::black_box;
use std::os::fd::{FromRawFd, OwnedFd};

use hostile::{BUFFER_BYTES, Call, List, Order, Own, PLAN_BYTES, PLAN_MARK, Plan, Report, fill_in};
use sandbox_os::filter::{Filter, SOCKET};
use sandbox_os::lockdown::{self, Exit, Locks};
use sandbox_os::{PACKET_BYTES_MAX, Socket, SocketError};

mod attacks;

/// Bytes of heap reserved before the locks, as in the worker.
const HEAP_BYTES: usize = 16 << 20;

/// The mark, then the plan; the suite writes it into the image.
static PLAN: [u8; 16 + PLAN_BYTES] = {
    let mut bytes = [0; 16 + PLAN_BYTES];
    let mut at = 0;
    while at < PLAN_MARK.len() {
        bytes[at] = PLAN_MARK[at];
        at += 1;
    }
    bytes
};

fn main() {
    // Opaque, or the compiler takes the zeros for what will always stand there.
    let [.., own, kind, rule, argument] = *black_box(&PLAN);
    let plan = Plan::from_bytes([own, kind, rule, argument]);
    let socket = if plan.own.has(Own::ENTER) {
        lockdown::enter()
    } else {
        // SAFETY: the launcher put the socket there, and nothing else owns the number.
        Socket::from(unsafe { OwnedFd::from_raw_fd(SOCKET as i32) })
    };
    if !lockdown::reserve_heap(HEAP_BYTES) {
        lockdown::exit(Exit::Engine);
    }
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut locks = Lockable::new(plan);
    attacks::prepare();
    locks.first();
    answer(&socket, &Report::Done { results: Vec::new(), buffer: Vec::new() });
    loop {
        // Under LOAD, descriptors may come along; RUN has no call for them.
        let received = if locks.running {
            socket.receive_blocking(&mut buffer)
        } else {
            socket.receive_with_files(&mut buffer).map(|(length, files)| {
                // They stay open for the attack, under the numbers that the kernel gave them.
                files.into_iter().for_each(std::mem::forget);
                length
            })
        };
        match received {
            Ok(length) => obey(&buffer[..length], &socket, &mut locks),
            Err(SocketError::Closed) => lockdown::exit(Exit::Done),
            Err(_) => lockdown::exit(Exit::Request),
        }
    }
}

/// The locks of a plan. Building allocates, so it happens before the first.
struct Lockable {
    plan: Plan,
    real: Locks,
    load: Filter,
    run: Filter,
    running: bool,
}

impl Lockable {
    fn new(plan: Plan) -> Self {
        let list = |list: List| Filter::only(&list.changed(plan.change));
        Self { plan, real: Locks::build(), load: list(List::Load), run: list(List::Run), running: false }
    }

    /// What happens before the first byte is read.
    fn first(&self) {
        let own = self.plan.own;
        if !own.has(Own::LOAD) {
            let code = attacks::map_code().as_ptr_range();
            if own.has(Own::SEALED) {
                let (at, length) = (code.start.addr(), code.end.addr() - code.start.addr());
                let _ = attacks::system_call(libc::SYS_mseal as u64, [at as u64, length as u64, 0, 0, 0, 0]);
            }
        }
        if own.has(Own::UNDUMPABLE) {
            // SAFETY: prctl with constant arguments.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        }
        if own.has(Own::CLOCKS) {
            lockdown::shut_clocks();
        }
        if own.has(Own::NO_EXEC_GAIN) {
            // SAFETY: prctl with constant arguments.
            unsafe { libc::prctl(libc::PR_SET_MDWE, libc::PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) };
        }
        match (own.has(Own::LOAD), self.plan.change) {
            (false, _) => {}
            (true, hostile::Change::None) => self.real.load(),
            (true, _) => install(&self.load),
        }
    }

    fn run(&mut self) {
        let own = self.plan.own;
        self.running = own.has(Own::RUN);
        let code = if own.has(Own::LOAD) { attacks::map_code() } else { &[] };
        match (self.running, self.plan.change) {
            (false, _) => {}
            (true, hostile::Change::None) if own.has(Own::LOAD) => self.real.run(code),
            (true, _) => install(&self.run),
        }
    }
}

fn install(filter: &Filter) {
    if filter.install().is_err() {
        lockdown::exit(Exit::NotLocked);
    }
}

fn answer(socket: &Socket, report: &Report) {
    if socket.send_blocking(&report.to_bytes()).is_err() {
        lockdown::exit(Exit::Done);
    }
}

fn obey(packet: &[u8], socket: &Socket, locks: &mut Lockable) {
    let report = match Order::from_bytes(packet) {
        None => lockdown::exit(Exit::Request),
        Some(Order::Run) => {
            locks.run();
            Report::Done { results: Vec::new(), buffer: Vec::new() }
        }
        Some(Order::Calls { calls, text }) => calls_of(&calls, &text),
        Some(Order::Routine { name, numbers, text }) => {
            match attacks::ROUTINES.iter().find(|(known, _)| *known == name) {
                Some((_, routine)) => match routine(numbers, &text) {
                    Ok(results) => Report::Done { results, buffer: Vec::new() },
                    Err(errno) => Report::Refused(errno),
                },
                None => lockdown::exit(Exit::Request),
            }
        }
    };
    answer(socket, &report);
}

fn calls_of(calls: &[Call], text: &[u8]) -> Report {
    let mut text = text.to_vec();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut results = Vec::with_capacity(calls.len());
    for [number, arguments @ ..] in calls {
        let [a, b, c, d, e, f] = arguments.map(|argument| {
            fill_in(
                argument,
                text.as_mut_ptr().expose_provenance() as u64,
                buffer.as_mut_ptr().expose_provenance() as u64,
                &results,
            )
        });
        match attacks::system_call(*number, [a, b, c, d, e, f]) {
            Ok(value) => results.push(value),
            Err(errno) => return Report::Refused(errno),
        }
    }
    Report::Done { results, buffer }
}
