//! Processes, threads, and what one process can do to another.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use hostile::{Order, Own, call, result, text};
use libc::{EACCES, EAGAIN, EFBIG, ENOENT, EPERM, ESRCH};
use sandbox_os::{Ended, Layers};

use super::Attack;
use crate::stage::{Hostile, Said, Setting, Stage};
use crate::table::{Control, Phase, Rows};
use crate::trial::{Alone, Scene, Stop, Trial, Way, stopped, works};
use crate::witness::{Victim, c_path, children, found, read, status};

/// Processes made by a bomb that nothing stops. Enough to tell one from a limit, few enough for this machine.
const BOMB: u64 = 64;
const SAME_USER: &str = "an ordinary user's workers are this user outside: it may signal itself";
const SIGTERM: u64 = libc::SIGTERM as u64;

pub(super) fn attacks() -> Vec<Attack> {
    vec![bomb(), threads(), programs(), others(), signals(), descriptor_signals()]
}

fn bomb() -> Attack {
    let way = |name, number: libc::c_long| {
        Way::new(name, move |_, _| {
            Scene::routine("children", [number as u64, BOMB, 0, 0], |_, worker| {
                children(worker.pid()) as u64 >= BOMB
            })
        })
    };
    let trial = Trial::of_calls(vec![
        way("fork", libc::SYS_fork),
        way("vfork", libc::SYS_vfork),
        way("clone", libc::SYS_clone),
        way("clone3", libc::SYS_clone3),
    ])
    .alone(
        Alone::layer("SETUP filter alone", Layers::SETUP, Stop::Sigsys).only(&["fork", "vfork", "clone3"]),
    );
    Attack::worker("A5", "makes processes without end", by_limits(trial))
}

/// Stopped by what limits processes, too.
fn by_limits(trial: Trial) -> Trial {
    let stop = Stop::Errno(&[EAGAIN]);
    trial
        .alone(Alone::layer("process limit of its own user alone", Layers::LIMITS | Layers::USER, stop))
        .alone(
            Alone::layer("control group alone", Layers::CGROUP, stop)
                .needs_root("an ordinary user has no control groups here"),
        )
        .alone(Alone::without_filters(stop))
}

fn threads() -> Attack {
    let way = |name, routine| {
        Way::new(name, move |_, _| {
            Scene::routine(routine, [0; 4], |said, worker| {
                found(said).is_some() && status(worker.pid(), "Threads") == "2"
            })
        })
    };
    let trial = Trial::of_calls(vec![way("clone", "thread"), way("clone3", "thread-of-libc")])
        .alone(Alone::layer("SETUP filter alone", Layers::SETUP, Stop::Sigsys).only(&["clone3"]));
    Attack::worker("A6", "counts in a thread, to have a clock", by_limits(trial))
}

/// A static program of one segment: sends "executed" over descriptor 3 and waits for its end.
#[must_use]
pub fn program() -> Vec<u8> {
    const AT: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let code: &[u8] = &[
        0xB8, 44, 0, 0, 0, // mov eax, sendto
        0xBF, 3, 0, 0, 0, // mov edi, 3
        0x48, 0x8D, 0x35, 28, 0, 0, 0, // lea rsi, [rip + 28]: the text
        0xBA, 8, 0, 0, 0, // mov edx, 8
        0x41, 0xBA, 0, 0x40, 0, 0, // mov r10d, MSG_NOSIGNAL
        0x45, 0x31, 0xC0, // xor r8d, r8d
        0x45, 0x31, 0xC9, // xor r9d, r9d
        0x0F, 0x05, // syscall
        0xB8, 34, 0, 0, 0, // mov eax, pause
        0x0F, 0x05, // syscall
        0xEB, 0xF7, // once more
    ];
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves = |file: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    halves(&mut file, &[2, 62, 1, 0]); // executable, x86-64, version 1
    for word in [AT + HEADERS, 64, 0] {
        file.extend(u64::to_le_bytes(word)); // entry, program headers, no sections
    }
    halves(&mut file, &[0, 0, 64, 56, 1, 0, 0, 0]); // flags; sizes and counts of headers
    halves(&mut file, &[1, 0, 5, 0]); // PT_LOAD, readable and executable
    let bytes = HEADERS + code.len() as u64 + 8;
    for word in [0, AT, AT, bytes, bytes, 4096] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(code);
    file.extend(b"executed");
    file
}

fn programs() -> Attack {
    let executed = |said: &Said| read(said, b"executed");
    let on_disk = move |_: &Stage, _: &Hostile| {
        let place = tempfile::tempdir().expect("room for temporary files");
        let path = place.path().join("program");
        std::fs::write(&path, program()).expect("room for temporary files");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        let calls = [call(libc::SYS_execve, &[text(0), 0, 0])];
        Scene::calls(&calls, &c_path(&path), move |said, _| place.path().exists() && executed(said))
    };
    let in_memory = move |_: &Stage, _: &Hostile| {
        let program = program();
        let text_bytes = [b"program\0", program.as_slice()].concat();
        let calls = [
            call(libc::SYS_memfd_create, &[text(0), 0]),
            call(libc::SYS_write, &[result(0), text(8), program.len() as u64]),
            call(libc::SYS_execveat, &[result(0), text(7), 0, 0, libc::AT_EMPTY_PATH as u64]),
        ];
        Scene::calls(&calls, &text_bytes, move |said, _| executed(said))
    };
    let trial = Trial::of_calls(vec![Way::new("on disk", on_disk), Way::new("in memory", in_memory)])
        .alone(Alone::layer("empty root alone", Layers::MOUNT, Stop::Errno(&[ENOENT])).only(&["on disk"]))
        .alone(Alone::layer("Landlock alone", Layers::LANDLOCK, Stop::Errno(&[EACCES])).only(&["on disk"]))
        .alone(
            Alone::layer("file size limit alone", Layers::LIMITS, Stop::Death(Ended::Signal(libc::SIGXFSZ)))
                .only(&["in memory"]),
        )
        .alone(Alone::without_filters(Stop::Errno(&[ENOENT])).only(&["on disk"]))
        // The first process of a pid namespace gets the error without the signal.
        .alone(Alone::without_filters(Stop::Errno(&[EFBIG])).only(&["in memory"]));
    Attack::worker("A7", "executes another program", trial)
}

fn others() -> Attack {
    let of = |name,
              victim: fn(&Stage) -> Victim,
              order: fn(&Victim) -> Order,
              seen: fn(&Said, &mut Victim) -> bool| {
        Way::new(name, move |stage, _| {
            let mut victim = victim(stage);
            let order = order(&victim);
            Scene { order, files: Vec::new(), obtained: Box::new(move |said, _| seen(said, &mut victim)) }
        })
    };
    let reads = |victim: &Victim| Order::routine("read-another", [victim.pid(), victim.address, 0, 0]);
    let writes = |victim: &Victim| Order::routine("write-another", [victim.pid(), victim.address, 0, 0]);
    let was_read = |said: &Said, victim: &mut Victim| victim.was_copied(said);
    let was_written = |_: &Said, victim: &mut Victim| victim.harmed();
    let traces = |victim: &Victim| Order::Calls {
        calls: vec![
            call(libc::SYS_ptrace, &[libc::PTRACE_ATTACH.into(), victim.pid()]),
            call(libc::SYS_wait4, &[victim.pid(), 0, libc::__WALL as u64, 0]),
            call(
                libc::SYS_ptrace,
                &[libc::PTRACE_PEEKDATA.into(), victim.pid(), victim.address, hostile::buffer(0)],
            ),
        ],
        text: Vec::new(),
    };
    let was_traced = |said: &Said, victim: &mut Victim| read(said, &victim.secret[..8]);
    let takes = |victim: &Victim| Order::Calls {
        calls: vec![
            call(libc::SYS_pidfd_open, &[victim.pid(), 0]),
            call(libc::SYS_pidfd_getfd, &[result(0), 3, 0]),
            call(libc::SYS_sendto, &[result(1), text(0), 5, libc::MSG_NOSIGNAL as u64]),
        ],
        text: b"taken".to_vec(),
    };
    // The next packet on the victim's socket is the attacker's, and not the victim's answer.
    let was_taken = |said: &Said, victim: &mut Victim| {
        matches!(said, Said::Done { .. }) && read(&victim.worker.answer(), b"taken")
    };
    let trial = Trial::of_calls(vec![
        of("process_vm_readv, node", Victim::node, reads, was_read),
        of("process_vm_readv, sibling", Victim::sibling, reads, was_read),
        of("process_vm_writev, node", Victim::node, writes, was_written),
        of("ptrace, node", Victim::node, traces, was_traced),
        of("ptrace, sibling", Victim::sibling, traces, was_traced),
        of("pidfd_getfd, node", Victim::node, takes, was_taken),
    ])
    .alone(Alone::layer("SETUP filter alone", Layers::SETUP, Stop::Sigsys).only(&[
        "process_vm_readv, node",
        "process_vm_readv, sibling",
        "process_vm_writev, node",
        "ptrace, node",
        "ptrace, sibling",
    ]))
    .alone(Alone::layer("pid namespace alone", Layers::PID, Stop::Errno(&[ESRCH])))
    .alone(Alone::layer("user of its own alone", Layers::USER, Stop::Errno(&[EPERM])))
    .alone(Alone::layer("Landlock alone", Layers::LANDLOCK, Stop::Errno(&[EPERM])))
    .alone(
        Alone::layer("no capabilities alone", Layers::CAPABILITIES, Stop::Errno(&[EPERM]))
            .needs_root("an ordinary user's node has none either"),
    )
    .alone(Alone::without_filters(Stop::Errno(&[ESRCH])));
    Attack::once("A10", "reads, writes or takes over the node or another worker", move |stage, rows| {
        trial.perform(stage, rows);
        of_one_user(stage, rows);
        users(stage, rows);
    })
}

/// Two workers of one user and without rights: only that the victim is undumpable is between them.
fn of_one_user(stage: &Stage, rows: &mut Rows) {
    // An ordinary user has none to drop.
    let layers = if stage.root { Layers::CAPABILITIES } else { Layers::NONE };
    let without_rights = move |own| Setting::of(layers, own);
    let way = |victim: Setting| {
        Way::new("process_vm_readv", move |stage: &Stage, _: &Hostile| {
            let victim = Victim::of(stage, victim);
            let numbers = [victim.pid(), victim.address, 0, 0];
            Scene::routine("read-another", numbers, move |said, _| victim.was_copied(said))
        })
        .control(without_rights(Own::NOTHING))
    };
    let control = works(stage, &way(without_rights(Own::NOTHING))).map(|()| Control::Fired);
    let undumpable = way(without_rights(Own::UNDUMPABLE));
    let contained = stopped(stage, &undumpable, without_rights(Own::NOTHING), Stop::Errno(&[EPERM]));
    rows.add(Phase::None, "victim undumpable alone", &control, contained);
}

/// No two workers have the same user.
fn users(stage: &Stage, rows: &mut Rows) {
    const WORKERS: usize = 16;
    if !stage.root {
        return rows.reduced("a user for each worker", "only root can give user ids");
    }
    let of = |setting| -> Result<BTreeSet<u32>, String> {
        let workers: Result<Vec<Hostile>, String> = (0..WORKERS).map(|_| stage.worker(setting)).collect();
        Ok(workers?.iter().map(Hostile::uid).collect())
    };
    let control = of(Setting::OPEN).and_then(|users| match users.len() {
        1 => Ok(Control::Fired),
        more => Err(format!("without the layer there are {more} users")),
    });
    let contained = of(Setting::RUN).and_then(|users| match users.len() {
        WORKERS => Ok(()),
        fewer => Err(format!("{WORKERS} workers have {fewer} users")),
    });
    rows.add(Phase::Run, "a user for each worker", &control, contained);
}

fn signals() -> Attack {
    let way = |name, order: fn(&Victim) -> Order| {
        Way::new(name, move |stage, _| {
            let mut victim = Victim::node(stage);
            let order = order(&victim);
            Scene { order, files: Vec::new(), obtained: Box::new(move |_, _| victim.harmed()) }
        })
    };
    fn calls(calls: &[hostile::Call], text: &[u8]) -> Order {
        Order::Calls { calls: calls.to_vec(), text: text.to_vec() }
    }
    /// A siginfo that says that the sender queued it: number, error, code -1.
    fn info() -> Vec<u8> {
        let mut info = vec![0; 128];
        info[0] = SIGTERM as u8;
        info[8..12].fill(0xFF);
        info
    }
    let everybody = Way::new("kill(-1)", |_, _| {
        Scene::routine("kill-everybody", [0; 4], |said, _| found(said) == Some(libc::SIGKILL as u64))
    })
    // In a namespace of its own: there is nobody else that it could hit.
    .control(Setting::of(Layers::PID, Own::NOTHING));
    const ONE: &[&str] =
        &["kill", "kill, sibling", "tkill", "tgkill", "rt_sigqueueinfo", "pidfd_send_signal"];
    let trial = Trial::of_calls(vec![
        way("kill", |victim| calls(&[call(libc::SYS_kill, &[victim.pid(), SIGTERM])], &[])),
        Way::new("kill, sibling", |stage, _| {
            let mut victim = Victim::sibling(stage);
            let order = calls(&[call(libc::SYS_kill, &[victim.pid(), libc::SIGKILL as u64])], &[]);
            Scene { order, files: Vec::new(), obtained: Box::new(move |_, _| victim.harmed()) }
        }),
        way("tkill", |victim| calls(&[call(libc::SYS_tkill, &[victim.pid(), SIGTERM])], &[])),
        way("tgkill", |victim| calls(&[call(libc::SYS_tgkill, &[victim.pid(), victim.pid(), SIGTERM])], &[])),
        way("rt_sigqueueinfo", |victim| {
            calls(&[call(libc::SYS_rt_sigqueueinfo, &[victim.pid(), SIGTERM, text(0)])], &info())
        }),
        way("pidfd_send_signal", |victim| {
            let open = call(libc::SYS_pidfd_open, &[victim.pid(), 0]);
            calls(&[open, call(libc::SYS_pidfd_send_signal, &[result(0), SIGTERM, 0, 0])], &[])
        }),
        everybody,
    ])
    .alone(Alone::layer("SETUP filter alone", Layers::SETUP, Stop::Sigsys).only(&["kill", "kill, sibling"]))
    .alone(Alone::layer("pid namespace alone", Layers::PID, Stop::Errno(&[ESRCH])).only(ONE))
    .alone(
        Alone::layer("user of its own alone", Layers::USER, Stop::Errno(&[EPERM]))
            .only(ONE)
            .needs_root(SAME_USER),
    )
    .alone(Alone::layer("Landlock alone", Layers::LANDLOCK, Stop::Errno(&[EPERM])).only(ONE))
    .alone(Alone::without_filters(Stop::Errno(&[ESRCH])).only(ONE));
    Attack::worker("A11", "sends signals to the node, or to everybody", trial)
}

fn descriptor_signals() -> Attack {
    let scene = |stage: &Stage, _: &Hostile| {
        let mut victim = Victim::node(stage);
        let calls = [
            call(libc::SYS_fcntl, &[3, libc::F_SETOWN as u64, victim.pid()]),
            call(libc::SYS_fcntl, &[3, libc::F_SETFL as u64, (libc::O_RDWR | libc::O_ASYNC) as u64]),
        ];
        Scene::calls(&calls, &[], move |_, worker| {
            // What the node sends wakes the worker's end, and signals whoever owns it.
            worker.tell(&Order::routine("held", [0; 4]), &[]);
            victim.harmed()
        })
    };
    let trial = Trial::of_calls(vec![Way::new("F_SETOWN", scene)])
        .alone(Alone::layer("pid namespace alone", Layers::PID, Stop::Errno(&[ESRCH])))
        .alone(Alone::layer("user of its own alone", Layers::USER, Stop::NoEffect).needs_root(SAME_USER))
        .alone(Alone::layer("Landlock alone", Layers::LANDLOCK, Stop::NoEffect))
        .alone(Alone::without_filters(Stop::Errno(&[ESRCH])));
    Attack::worker("A12", "has its socket signal the node", trial)
}
