//! A worker's end: outliving the node, being taken for another, leaving things behind.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use hostile::{Order, Own, call, text};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use sandbox_os::{Layers, Socket, SocketError};

use super::Attack;
use crate::stage::{Inheriting, PATIENCE, SIGSEGV, Said, Setting, Stage, borrowed};
use crate::table::{Control, Phase, Rows};
use crate::{images, witness};

pub(super) fn attacks() -> Vec<Attack> {
    vec![outlives(), is_taken_for_another(), leaves_things(), dumps(), deputy()]
}

/// Argument that makes this program a stand-in for a node; what it does follows.
pub const STAND_IN: &str = "stand-in";

/// This program once more, as a node that can be killed.
pub(crate) struct StandIn {
    child: Child,
    /// Process that it started.
    started: i32,
}

impl StandIn {
    pub(crate) fn start(role: &str) -> Result<Self, String> {
        let shown = |error: std::io::Error| format!("a stand-in for the node: {error}");
        let mut child = Command::new("/proc/self/exe")
            .args([STAND_IN, role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(shown)?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line).map_err(shown)?;
        }
        let started = line.trim().parse();
        let mut stand_in = Self { child, started: 0 };
        stand_in.started = started.map_err(|_| format!("a stand-in for the node says {line:?}"))?;
        Ok(stand_in)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a stand-in does: starts a worker, has it spin, says which process it is, and waits for its own end.
///
/// # Errors
/// What went wrong.
pub(super) fn stand_in(role: &str) -> Result<(), String> {
    let spin = Order::routine("spin", [0; 4]);
    let stage = Stage::new();
    let wait = |pid: i32| {
        println!("{pid}");
        let _end = std::io::stdin().lines().next();
    };
    match role {
        "idle" => wait(0),
        "plain" => {
            let worker = Inheriting::start(Stdio::null()).map_err(|error| error.to_string())?;
            worker.tell(&spin);
            wait(worker.pid());
        }
        other => {
            let setting = if other == "LOAD" { Setting::LOAD } else { Setting::RUN };
            let worker = stage.worker(setting)?;
            worker.tell(&spin, &[]);
            wait(worker.pid());
        }
    }
    Ok(())
}

fn handle(pid: i32) -> Result<OwnedFd, String> {
    let pid = Pid::from_raw(pid).ok_or("no process")?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| errno.to_string())
}

/// Whether a process ends within `seconds`.
fn ends(process: &OwnedFd, seconds: i64) -> bool {
    let patience = Timespec { tv_sec: seconds, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&patience)) == Ok(1)
}

fn outlives() -> Attack {
    /// The node is killed; whether anything is left of what it had started: the worker, and with it the launcher.
    fn left(role: &str, seconds: i64) -> Result<bool, String> {
        let stand_in = StandIn::start(role)?;
        let children = children_of(stand_in.pid());
        if !children.contains(&stand_in.started) {
            return Err(format!("the worker isn't among the node's children {children:?}"));
        }
        let children: Vec<OwnedFd> = children.into_iter().map(handle).collect::<Result<_, _>>()?;
        drop(stand_in);
        let left = children.iter().any(|child| !ends(child, seconds));
        for child in &children {
            let _gone = rustix::process::pidfd_send_signal(child, Signal::KILL);
        }
        Ok(left)
    }
    Attack::once("A57", "goes on after the node was killed", |_, rows| {
        let control = match left("plain", 1) {
            Ok(true) => Ok(Control::Fired),
            Ok(false) => Err("a plain child ended too".to_owned()),
            Err(why) => Err(why),
        };
        for (phase, role) in [(Phase::Load, "LOAD"), (Phase::Run, "RUN")] {
            let contained = match left(role, PATIENCE.as_secs() as i64) {
                Ok(false) => Ok(()),
                Ok(true) => Err("it is still there".to_owned()),
                Err(why) => Err(why),
            };
            rows.add(phase, "parent-death signal", &control, contained);
        }
    })
}

/// A process with the number of one that is gone, which waits for its end.
fn with_number(pid: i32) -> Result<Pid, std::io::Error> {
    // SAFETY: an all-zero clone_args is valid: no stack, no TLS.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = (&raw const pid).expose_provenance() as u64;
    arguments.set_tid_size = 1;
    // SAFETY: like fork; the child makes nothing but system calls, so the other threads' locks are of no concern.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match made {
        0 => loop {
            // SAFETY: no arguments. The parent-death signal ends it in any case.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                libc::pause();
            }
        },
        made => Pid::from_raw(made as i32).ok_or_else(std::io::Error::last_os_error),
    }
}

/// Ends such a process. Whether it was alive.
fn was_alive(pid: Pid) -> bool {
    let ended = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    let _gone = rustix::process::kill_process(pid, Signal::KILL);
    let _reaped = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    matches!(ended, Ok(None))
}

fn is_taken_for_another() -> Attack {
    /// A worker that has ended by itself and was reaped.
    fn ended(stage: &Stage) -> Result<crate::stage::Hostile, String> {
        let mut worker = stage.worker(Setting::RUN)?;
        match worker.ask(&Order::routine("no such routine", [0; 4]), &[]) {
            Said::Died(_) => Ok(worker),
            other => Err(format!("it goes on: {other:?}")),
        }
    }
    fn other(worker: &crate::stage::Hostile) -> Result<Pid, String> {
        with_number(worker.pid()).map_err(|error| format!("a process with a given number: {error}"))
    }
    Attack::once("A58", "ends, and has the node kill who gets its process number", |stage, rows| {
        if !stage.root {
            rows.reduced("a process with a given number", "choosing a number takes root");
            return;
        }
        let control = ended(stage).and_then(|worker| {
            let other = other(&worker)?;
            // As a node would that knows its workers by their numbers.
            let _hit = rustix::process::kill_process(other, Signal::KILL);
            let process = handle(worker.pid())?;
            ends(&process, 20).then_some(Control::Fired).ok_or_else(|| "the other lives".to_owned())?;
            was_alive(other);
            Ok(Control::Fired)
        });
        let contained = ended(stage).and_then(|mut worker| {
            let other = other(&worker)?;
            worker.end();
            drop(worker);
            if was_alive(other) { Ok(()) } else { Err("the other process was killed".to_owned()) }
        });
        rows.add(Phase::None, "process handle (pidfd)", &control, contained);
    })
}

/// Children of all threads of a process.
fn children_of(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// What launches use up: descriptors, children, mounts, control groups.
fn used(stage: &Stage) -> [usize; 4] {
    let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let children = children_of(std::process::id() as i32).len();
    [count("/proc/self/fd"), children, mounts.lines().count(), stage.groups()]
}

fn leaves_things() -> Attack {
    const LAUNCHES: usize = 300;
    const HELD: usize = 10;
    Attack::once(
        "A59",
        "leaves processes, descriptors, mounts or groups behind",
        |stage: &Stage, rows: &mut Rows| {
            let launch = || stage.worker(Setting::RUN);
            let warm = launch().map(drop);
            let before = used(stage);
            // While workers live they use something of each kind.
            let held: Result<Vec<_>, String> = (0..HELD).map(|_| launch()).collect();
            let control = held.and_then(|held| {
                let [descriptors, processes, ..] = used(stage);
                let more = descriptors >= before[0] + HELD && processes >= before[1] + HELD;
                drop(held);
                if more { Ok(Control::Fired) } else { Err("living workers aren't seen".to_owned()) }
            });
            let contained =
                warm.and_then(|()| (0..LAUNCHES).try_for_each(|_| launch().map(drop))).and_then(|()| {
                    let after = used(stage);
                    let kinds = "descriptors, processes, mounts, groups";
                    if after == before {
                        Ok(())
                    } else {
                        Err(format!("{kinds}: {before:?} before, {after:?} after"))
                    }
                });
            rows.add(Phase::None, "every process reaped, every group removed", &control, contained);
        },
    )
}

fn dumps() -> Attack {
    /// A worker faults, if it can in a directory where a core file could be written. Whether one was.
    fn dumped(stage: &Stage, setting: Setting, goes_there: bool) -> Result<bool, String> {
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut worker = stage.worker(setting)?;
        if goes_there {
            let calls = vec![call(libc::SYS_chdir, &[text(0)])];
            let _without_files =
                worker.ask(&Order::Calls { calls, text: witness::c_path(place.path()) }, &[]);
        }
        worker.tell(&Order::routine("fault", [0; 4]), &[]);
        let pid = Pid::from_raw(worker.pid()).ok_or("no process")?;
        let ended = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let ended = ended.map_err(|errno| errno.to_string())?.ok_or("it goes on")?;
        let files = std::fs::read_dir(place.path()).map_or(0, Iterator::count);
        match worker.end() {
            how if how == SIGSEGV => Ok(ended.dumped() || files > 0),
            how => Err(format!("it should have faulted: {how}")),
        }
    }
    let none = |dumped| if dumped { Err("there is a core file".to_owned()) } else { Ok(()) };
    Attack::once("A60", "leaves a core file with memory of its canister", move |stage, rows| {
        // Of its own, and with launchers of its own: limits are inherited.
        let before = rustix::process::getrlimit(Resource::Core);
        let unlimited = if stage.root { None } else { before.maximum };
        let raised =
            rustix::process::setrlimit(Resource::Core, Rlimit { current: unlimited, maximum: unlimited });
        let stage = Stage::new();
        let control =
            raised.map_err(|errno| errno.to_string()).and_then(|()| dumped(&stage, Setting::OPEN, true));
        let control = control.and_then(|dumped| {
            if dumped { Ok(Control::Fired) } else { Err("no core file without any layer".to_owned()) }
        });
        for (phase, setting) in [(Phase::Load, Setting::LOAD), (Phase::Run, Setting::RUN)] {
            rows.add(
                phase,
                "undumpable, no core files",
                &control,
                dumped(&stage, setting, false).and_then(none),
            );
        }
        for (layer, setting) in [
            ("undumpable alone", Setting::of(Layers::NONE, Own::UNDUMPABLE)),
            ("core size limit alone", Setting::of(Layers::LIMITS, Own::NOTHING)),
            ("empty root alone", Setting::of(Layers::MOUNT, Own::NOTHING)),
        ] {
            rows.add(Phase::None, layer, &control, dumped(&stage, setting, true).and_then(none));
        }
        // Launchers that were started meanwhile end with their stage; others have the limit that they had.
        let _back = rustix::process::setrlimit(Resource::Core, before);
    })
}

/// Random requests of up to 16 bytes, the same in every run; none is one byte long, as proper ones are.
fn noise() -> impl Iterator<Item = Vec<u8>> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..64).map(move |_| {
        let length = 2 + next() as usize % 15;
        (0..length).map(|_| next() as u8 % 8).collect()
    })
}

fn deputy() -> Attack {
    /// A launcher, spoken to without the node's code. What it starts are this process's children.
    fn start() -> Result<(Socket, Child), String> {
        let shown = |error: &dyn std::fmt::Display| format!("a launcher: {error}");
        let worker =
            images::worker_with(hostile::Plan { own: Own::REAL_LOAD, change: hostile::Change::None });
        let program = sandbox_os::image::sealed(images::LAUNCHER).map_err(|error| shown(&error))?;
        let worker = sandbox_os::image::sealed(&worker).map_err(|error| shown(&error))?;
        let (ours, theirs) = Socket::pair().map_err(|error| shown(&error))?;
        let child = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(|error| shown(&error))?;
        ours.send_with_files(&[0], &[worker.as_fd()]).map_err(|error| shown(&error))?;
        Ok((ours, child))
    }
    /// Whether a request makes the launcher start a process.
    fn starts(request: &[u8], files: &[BorrowedFd<'_>]) -> Result<bool, String> {
        let (launcher, mut child) = start()?;
        let sent = match files {
            [] => launcher.send(request, PATIENCE),
            files => launcher.send_with_files(request, files),
        };
        sent.map_err(|error| error.to_string())?;
        launcher.set_receive_patience(PATIENCE).map_err(|error| error.to_string())?;
        let mut reply = [0; 64];
        let answer = launcher.receive_with_files(&mut reply);
        drop(launcher);
        let _ended = child.wait();
        match answer {
            Ok((_, files)) => {
                // A worker that was started is ended by its handle, the first of the two.
                if let Some(handle) = files.first() {
                    let _gone = rustix::process::pidfd_send_signal(handle, Signal::KILL);
                    let _reaped =
                        rustix::process::waitid(WaitId::PidFd(handle.as_fd()), WaitIdOptions::EXITED);
                }
                Ok(!files.is_empty())
            }
            Err(SocketError::Closed) => Ok(false),
            Err(error) => Err(format!("the launcher neither answers nor ends: {error}")),
        }
    }
    Attack::once("A61", "has the launcher start another program, or as another user", |_, rows| {
        let control = match starts(&[1], &[]) {
            Ok(true) => Ok(Control::Fired),
            Ok(false) => Err("a proper request starts nothing".to_owned()),
            Err(why) => Err(why),
        };
        let other =
            sandbox_os::image::sealed(&super::processes::program()).map_err(|error| error.to_string());
        let requests: [&[u8]; 9] = [
            b"\x01/bin/sh\0",
            b"/bin/sh",
            &[1, 0],
            &[1, 0, 0, 0, 0],
            &[2],
            &[9],
            &[255; 5],
            &[1; 6],
            &[0; 4096],
        ];
        let contained = requests.iter().try_for_each(|request| match starts(request, &[])? {
            true => Err(format!("{:x?} starts a process", &request[..request.len().min(16)])),
            false => Ok(()),
        });
        let contained = contained.and_then(|()| {
            noise().try_for_each(|request| match starts(&request, &[])? {
                true => Err(format!("{request:x?} starts a process")),
                false => Ok(()),
            })
        });
        // Another image, after the first: the launcher has its own by then.
        let contained = contained.and_then(|()| {
            let other = other?;
            match starts(&[0], &borrowed(&[other]))? {
                true => Err("another image is started".to_owned()),
                false => Ok(()),
            }
        });
        rows.add(Phase::None, "requests without paths, users or images", &control, contained);
    })
}
