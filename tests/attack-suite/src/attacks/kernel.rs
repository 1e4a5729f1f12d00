//! The kernel's interfaces: all that a worker has no use for, and the other ways in.

use std::collections::BTreeSet;

use hostile::{Call, List, Order, Own, call, text};
use sandbox_os::filter::Rule;
use sandbox_os::{Ended, Layers};

use super::Attack;
use crate::perturbed::perturbed;
use crate::stage::{Hostile, SIGSYS, Said, Setting, Stage};
use crate::table::{Control, Phase, Rows};
use crate::trial::{Alone, Scene, Stop, Trial, Way};
use crate::witness::{answered, found};

/// The kernel's numbers for system calls end well before this.
const NUMBERS: u64 = 1024;
/// Numbers of the 32-bit entry end before this.
const NUMBERS_32: u64 = 512;
/// Says that a number is of the x32 interface.
const X32: u64 = 1 << 30;
/// The kernel's own: uprobe entries, which pass every filter since Linux 6.14 and 6.18. Made by anything but a probe,
/// the first kills its caller and the second does nothing.
const URETPROBE: u64 = 335;
const UPROBE: u64 = 336;

pub(super) fn attacks() -> Vec<Attack> {
    vec![rings(), surface(), entries()]
}

fn rings() -> Attack {
    let ring = |_: &Stage, _: &Hostile| {
        let calls = [call(libc::SYS_io_uring_setup, &[8, text(0)])];
        Scene::calls(&calls, &[0; 120], |_, worker| {
            let files = std::fs::read_dir(format!("/proc/{}/fd", worker.pid()));
            let mut names =
                files.into_iter().flatten().filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
            names.any(|name| name.to_string_lossy().contains("io_uring"))
        })
    };
    let trial = Trial::of_calls(vec![Way::new("io_uring_setup", ring)]).alone(Alone::layer(
        "SETUP filter alone",
        Layers::SETUP,
        Stop::Sigsys,
    ));
    Attack::worker("A9", "makes calls past the filter by a ring (io_uring)", trial)
}

/// Calls of the kernel's attack surface, with arguments that harm nobody: what is to be seen is that the kernel answers,
/// be it with an error.
const SURFACE: &[(&str, libc::c_long, &[u64])] = &[
    ("bpf", libc::SYS_bpf, &[0, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, &[0, 0, u64::MAX, u64::MAX, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, &[1]),
    ("kexec_load", libc::SYS_kexec_load, &[0, 0, 0, u64::MAX]),
    ("init_module", libc::SYS_init_module, &[0, 0, 0]),
    ("finit_module", libc::SYS_finit_module, &[u64::MAX, 0, 0]),
    ("delete_module", libc::SYS_delete_module, &[0, 0]),
    ("quotactl", libc::SYS_quotactl, &[u64::MAX, 0, 0, 0]),
    ("keyctl", libc::SYS_keyctl, &[0, -3_i64 as u64, 0]),
    ("modify_ldt", libc::SYS_modify_ldt, &[0, 0, 0]),
    ("memfd_create", libc::SYS_memfd_create, &[0, 0]),
    ("memfd_secret", libc::SYS_memfd_secret, &[u64::MAX]),
    ("msgget", libc::SYS_msgget, &[0x7EAD, 0]),
    ("shmget", libc::SYS_shmget, &[0x7EAD, 0, 0]),
    ("mq_open", libc::SYS_mq_open, &[0, 0, 0, 0]),
    ("inotify_init1", libc::SYS_inotify_init1, &[u64::MAX]),
    ("fanotify_init", libc::SYS_fanotify_init, &[u64::MAX, 0]),
    ("fsopen", libc::SYS_fsopen, &[0, 0]),
    ("splice", libc::SYS_splice, &[u64::MAX, 0, u64::MAX, 0, 0, 0]),
    ("vmsplice", libc::SYS_vmsplice, &[u64::MAX, 0, 0, 0]),
    ("futex", libc::SYS_futex, &[0, 0, 0, 0]),
    ("getrandom", libc::SYS_getrandom, &[0, 0, 0]),
    ("ioctl", libc::SYS_ioctl, &[3, 0, 0]),
];

fn surface() -> Attack {
    let ways = || {
        let way = |&(name, number, arguments): &(&'static str, libc::c_long, &'static [u64])| {
            Way::new(name, move |_, _| {
                Scene::calls(&[call(number, arguments)], &[], |said, _| answered(said))
            })
        };
        SURFACE.iter().map(way).collect()
    };
    Attack::once("A15", "reaches the kernel's attack surface", move |stage, rows| {
        Trial::of_calls(ways())
            .alone(Alone::layer("SETUP filter alone", Layers::SETUP, Stop::Sigsys).only(&[
                "bpf",
                "perf_event_open",
                "userfaultfd",
                "kexec_load",
                "init_module",
                "finit_module",
                "keyctl",
            ]))
            .perform(stage, rows);
        let control = unfiltered(stage);
        for (list, setting, phase) in LISTS {
            let calls = (0..NUMBERS)
                .filter(|number| !has(list.rules(), *number))
                .map(|number| [number, 0, 0, 0, 0, 0, 0]);
            let stopped_by = format!("{} filter: every other number", name(list));
            rows.add(phase, stopped_by, &control, all_die(stage, setting, calls));
            let calls = perturbed(list).into_iter().map(|broken| broken.call);
            let stopped_by = format!("{} filter: every other argument", name(list));
            rows.add(phase, stopped_by, &control, all_die(stage, setting, calls));
        }
    })
}

const LISTS: [(List, Setting, Phase); 2] =
    [(List::Load, Setting::LOAD, Phase::Load), (List::Run, Setting::RUN, Phase::Run)];

fn name(list: List) -> &'static str {
    match list {
        List::Load => "LOAD",
        List::Run => "RUN",
    }
}

fn has(rules: &[Rule], number: u64) -> bool {
    rules.iter().any(|rule| rule.number as u64 == number)
}

fn order(call: Call) -> Order {
    Order::Calls { calls: vec![call], text: vec![0; 64] }
}

/// Each call kills its worker by the filter.
fn all_die(stage: &Stage, setting: Setting, calls: impl Iterator<Item = Call>) -> Result<(), String> {
    for call in calls {
        let mut worker = stage.worker(setting)?;
        let said = worker.ask(&order(call), &[]);
        let expected = match call[0] {
            URETPROBE => {
                matches!(&said, Said::Died(how) if [SIGSYS, Ended::Signal(libc::SIGILL)].contains(how))
            }
            UPROBE => true,
            _ => said == Said::Died(SIGSYS),
        };
        if !expected {
            return Err(format!("call {call:x?}: {said:?}"));
        }
    }
    Ok(())
}

/// The control of the sweep: in a worker with every layer but a filter, the kernel answers each number. Not asked: those
/// that end a process, make another, wait for ever, or bring a filter of their own.
fn unfiltered(stage: &Stage) -> Result<Control, String> {
    let other: BTreeSet<u64> = [
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_rt_sigreturn,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_clone,
        libc::SYS_pause,
        libc::SYS_select,
        libc::SYS_pselect6,
        libc::SYS_ppoll,
        libc::SYS_seccomp,
        URETPROBE as i64,
    ]
    .map(|number| number as u64)
    .into();
    let setting = Setting::of(Layers::ALL.without(Layers::SETUP), Own::ENTER);
    let mut worker = stage.worker(setting)?;
    for number in (0..NUMBERS).filter(|number| !other.contains(number)) {
        let said = worker.ask(&order([number, 0, 0, 0, 0, 0, 0]), &[]);
        if !answered(&said) {
            return Err(format!("without a filter, call {number} isn't answered: {said:?}"));
        }
    }
    Ok(Control::Fired)
}

fn entries() -> Attack {
    let ways = || {
        vec![
            Way::new("int 0x80", |_, _| {
                const GETPID: u64 = 20;
                Scene::routine("32-bit-entry", [GETPID, 0, 0, 0], |said, worker| {
                    found(said) == Some(worker.pid() as u64)
                })
            }),
            Way::new("x32", |_, _| {
                let calls = [[libc::SYS_getpid as u64 | X32, 0, 0, 0, 0, 0, 0]];
                Scene::calls(&calls, &[], |said, _| answered(said))
            }),
            Way::new("vsyscall", |_, _| {
                Scene::routine("vsyscall-clock", [0; 4], |said, _| {
                    found(said).is_some_and(|time| time > 1 << 30)
                })
            }),
        ]
    };
    Attack::once(
        "A16",
        "enters the kernel another way: int 0x80, x32, vsyscall",
        move |stage: &Stage, rows: &mut Rows| {
            Trial::of_calls(ways()).perform(stage, rows);
            let control =
                ways().iter().try_for_each(|way| crate::trial::works(stage, way)).map(|()| Control::Fired);
            for (list, setting, phase) in LISTS {
                let calls = (0..NUMBERS).map(|number| [number | X32, 0, 0, 0, 0, 0, 0]);
                let stopped_by = format!("{} filter: every x32 number", name(list));
                rows.add(phase, stopped_by, &control, all_die(stage, setting, calls));
                let stopped_by = format!("{} filter: every 32-bit number", name(list));
                let contained = (0..NUMBERS_32).try_for_each(|number| {
                    let mut worker = stage.worker(setting)?;
                    match worker.ask(&Order::routine("32-bit-entry", [number, 0, 0, 0]), &[]) {
                        Said::Died(SIGSYS) => Ok(()),
                        said => Err(format!("32-bit call {number}: {said:?}")),
                    }
                });
                rows.add(phase, stopped_by, &control, contained);
            }
        },
    )
}
