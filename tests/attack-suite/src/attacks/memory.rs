//! Memory: secrets in it, filling it, sharing it, making code of it.

use std::collections::BTreeSet;
use std::process::Stdio;

use hostile::{Order, Own, call, result};
use libc::{EACCES, EPERM};
use sandbox_os::{Ended, Layers};

use super::Attack;
use crate::stage::{GROUP_BYTES, Hostile, Inheriting, Said, Setting, Stage};
use crate::table::{Control, Phase, Rows};
use crate::trial::{Alone, Scene, Stop, Trial, Way, stopped, works};
use crate::witness::{Victim, found, secret, status};

const PHASES: [(Phase, Setting); 2] = [(Phase::Load, Setting::LOAD), (Phase::Run, Setting::RUN)];

pub(super) fn attacks() -> Vec<Attack> {
    let secrets = "new program, empty environment";
    vec![
        Attack::once("A4", "looks for the node's secrets in its own memory", move |stage, rows| {
            looks(stage, rows, secrets);
            let nothing_else = Setting::OPEN;
            let control = inherited();
            rows.add(
                Phase::None,
                "new program, empty environment alone",
                &control,
                finds_none(stage, nothing_else),
            );
        }),
        fills(),
        Attack::once("A49", "reads its own memory by speculation", move |stage, rows| {
            looks(stage, rows, "no secret is there (A4's search)");
            speculates(stage, rows);
        }),
        shares(),
        merges(),
        makes_code(),
        replaces_code(),
    ]
}

/// Environment variable that holds a secret of the node's, in the environment that this program was started with or
/// gives its children.
const VARIABLE: &str = "BULKHEAD_ATTACK_SUITE_SECRET";

/// The node's secret: planted once, in this process's heap and in the environment of all that it starts.
fn planted() -> &'static [u8; 32] {
    static PLANTED: std::sync::OnceLock<[u8; 32]> = std::sync::OnceLock::new();
    PLANTED.get_or_init(|| secret().map(|byte| b'a' + byte % 26))
}

/// Everything that process `pid` can read, as bounds.
fn readable(pid: i32) -> Vec<u8> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mut bounds = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights, name) = (fields.next(), fields.next(), fields.nth(3).unwrap_or(""));
        // The kernel's own pages of clocks have nothing of the node's, and can't all be read.
        let kernels = name.starts_with("[vvar") || name.starts_with("[vsyscall");
        let Some((from, to)) = range.and_then(|range| range.split_once('-')) else { continue };
        if rights.is_some_and(|rights| rights.starts_with('r')) && !kernels {
            for bound in [from, to] {
                bounds.extend(u64::from_str_radix(bound, 16).unwrap_or(0).to_le_bytes());
            }
        }
    }
    bounds
}

/// The order to look for the secret in all of a process, without giving the secret away.
fn look(pid: i32) -> Order {
    let noise = secret();
    let masked = std::array::from_fn::<u8, 32, _>(|at| planted()[at] ^ noise[at]);
    let text = [noise.as_slice(), &masked, &readable(pid)].concat();
    Order::Routine { name: "look-for".into(), numbers: [0; 4], text }
}

/// The control: a program started as programs usually are has its parent's environment in its memory.
fn inherited() -> Result<Control, String> {
    let secret = String::from_utf8_lossy(planted()).into_owned();
    let worker =
        Inheriting::start_with(Stdio::null(), &[(VARIABLE, &secret)]).map_err(|error| error.to_string())?;
    match worker.ask(&look(worker.pid())) {
        Said::Done { results, .. } if !results.is_empty() => Ok(Control::Fired),
        other => Err(format!("an inherited secret isn't found: {other:?}")),
    }
}

fn finds_none(stage: &Stage, setting: Setting) -> Result<(), String> {
    let mut worker = stage.worker(setting)?;
    let order = look(worker.pid());
    match worker.ask(&order, &[]) {
        Said::Refused(0) => Ok(()),
        other => Err(format!("looking for a secret: {other:?}")),
    }
}

fn looks(stage: &Stage, rows: &mut Rows, stopped_by: &str) {
    let control = inherited();
    for (phase, setting) in PHASES {
        rows.add(phase, stopped_by, &control, finds_none(stage, setting));
    }
}

/// What the processor guesses for a worker is told apart from what it guesses for others, where the kernel can have that.
fn speculates(stage: &Stage, rows: &mut Rows) {
    let (own, worker) = (std::process::id() as i32, stage.worker(Setting::RUN));
    for (stopped_by, line, off) in [
        ("store bypass off (SSBD)", "Speculation_Store_Bypass", "mitigated"),
        ("indirect branches off (IB)", "SpeculationIndirectBranch", "force disabled"),
    ] {
        // In force in the worker and not in this process, or refused by the machine to both.
        let control = Ok(match status(own, line) {
            ours if worker.as_ref().is_ok_and(|worker| status(worker.pid(), line) == ours) => {
                Control::NotPossibleHere
            }
            _ => Control::Fired,
        });
        let contained =
            worker.as_ref().map_err(String::clone).and_then(|worker| match status(worker.pid(), line) {
                theirs if control == Ok(Control::Fired) && !theirs.contains(off) => {
                    Err(format!("{line}: {theirs}"))
                }
                theirs if theirs.is_empty() => Err(format!("{line} isn't told")),
                _ => Ok(()),
            });
        rows.add(Phase::Run, stopped_by, &control, contained);
    }
}

fn fills() -> Attack {
    /// Well above what a worker's group has here.
    const BYTES: u64 = 4 * GROUP_BYTES;
    let way = |name, kind| {
        Way::new(name, move |stage, _| {
            let mut sibling = Victim::sibling(stage);
            Scene::routine("fill", [BYTES, kind, 0, 0], move |said, _| {
                found(said).is_some_and(|got| got >= BYTES) || sibling.harmed()
            })
        })
    };
    let pages = move || way("pages", 0);
    let file = move || way("memory file", 1);
    let tables = move || way("page tables", 2);
    Attack::once("A45", "fills the machine's memory", move |stage, rows| {
        let all = [pages(), file(), tables()];
        let control = all.iter().try_for_each(|way| works(stage, way)).map(|()| Control::Fired);
        let contained =
            |ways: &[Way], setting, stop| ways.iter().try_for_each(|way| stopped(stage, way, setting, stop));
        rows.add(Phase::Run, "RUN filter", &control, contained(&all, Setting::RUN, Stop::Sigsys));
        rows.add(
            Phase::Load,
            "LOAD filter (memory files)",
            &control,
            contained(&[file()], Setting::LOAD, Stop::Sigsys),
        );
        let limit = Setting::of(Layers::LIMITS, Own::NOTHING);
        let size = contained(&[file()], limit, Stop::Death(Ended::Signal(libc::SIGXFSZ)));
        rows.add(Phase::None, "file size limit alone (memory files)", &control, size);
        rows.add(Phase::Run, "first to be ended for memory", &control, goes_first(stage));
        if stage.has_groups() {
            let group = contained(&[pages(), tables()], Setting::LOAD, Stop::OutOfMemory);
            rows.add(Phase::Load, "control group", &control, group);
            let alone = Setting::of(Layers::CGROUP, Own::NOTHING);
            rows.add(Phase::None, "control group alone", &control, contained(&all, alone, Stop::OutOfMemory));
        } else {
            let why = "no control groups here: under LOAD only the node's own measuring ends such a worker";
            rows.reduced("control group, under LOAD and alone", why);
        }
    })
}

/// Where memory runs out all the same, the kernel ends a worker before the node.
fn goes_first(stage: &Stage) -> Result<(), String> {
    let worker = stage.worker(Setting::RUN)?;
    let score = |pid: i32| {
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
        score.ok().and_then(|score| score.trim().parse::<i32>().ok())
    };
    let (node, worker) = (score(std::process::id() as i32), score(worker.pid()));
    match worker {
        Some(1000) if worker > node => Ok(()),
        _ => Err(format!("the worker's score is {worker:?}, the node's {node:?}")),
    }
}

/// Files of which a process has mapped a part: device and inode.
fn mapped(pid: i32) -> BTreeSet<(String, String)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let file = |line: &str| {
        let mut fields = line.split_whitespace().skip(3);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    maps.lines().filter_map(file).filter(|(_, inode)| inode != "0").collect()
}

fn shares() -> Attack {
    Attack::once("A50", "watches the node's code through the cache (Flush+Reload)", |stage, rows| {
        let node = mapped(std::process::id() as i32);
        let shared = |pid: i32| {
            let theirs = mapped(pid);
            if theirs.is_empty() {
                Err("it has no mapping".to_owned())
            } else {
                Ok(!theirs.is_disjoint(&node))
            }
        };
        // A process forked from the node, or started from its file, has the node's pages.
        let control = crate::attacks::life::StandIn::start("idle")
            .and_then(|stand_in| shared(stand_in.pid()))
            .and_then(|shared| if shared { Ok(Control::Fired) } else { Err("it shares nothing".to_owned()) });
        for (phase, setting) in PHASES {
            let contained = stage.worker(setting).and_then(|worker| match shared(worker.pid())? {
                true => Err("it has mapped a file that the node has mapped".to_owned()),
                false => Ok(()),
            });
            rows.add(phase, "static program in a memory file of its own", &control, contained);
        }
        // Between workers it takes an option.
        let two = |private| -> Result<bool, String> {
            let workers =
                [stage.worker_from(Setting::RUN, private)?, stage.worker_from(Setting::RUN, private)?];
            let [one, other] = workers.each_ref().map(|worker| mapped(worker.pid()));
            if one.is_empty() { Err("it has no mapping".to_owned()) } else { Ok(!one.is_disjoint(&other)) }
        };
        let control = two(false).and_then(|shared| {
            if shared { Ok(Control::Fired) } else { Err("workers share nothing".to_owned()) }
        });
        let contained =
            two(true).and_then(|shared| if shared { Err("they share it".to_owned()) } else { Ok(()) });
        rows.add(Phase::Run, "private images (other workers, an option)", &control, contained);
    })
}

/// Marks of a mapping in `/proc/PID/smaps`.
fn marked(pid: i32, mark: &str) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut flags = maps.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
    flags.any(|flags| flags.split_whitespace().any(|flag| flag == mark))
}

fn merges() -> Attack {
    const BYTES: u64 = 4 << 20;
    const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let way = |name, advice: i32, mark: &'static str| {
        Way::new(name, move |_, _| {
            let calls = [
                call(libc::SYS_mmap, &[0, BYTES, READ_WRITE, ANONYMOUS, u64::MAX, 0]),
                call(libc::SYS_madvise, &[result(0), BYTES, advice as u64]),
            ];
            Scene::calls(&calls, &[], move |_, worker| marked(worker.pid(), mark))
        })
    };
    let trial = Trial::of_calls(vec![
        way("pages that are joined", libc::MADV_MERGEABLE, "mg"),
        way("huge pages", libc::MADV_HUGEPAGE, "hg"),
    ]);
    Attack::worker("A51", "has its pages joined with others' that hold the same, or made huge", trial)
}

fn makes_code() -> Attack {
    let way = |name, routine| {
        Way::new(name, move |_, _| Scene::routine(routine, [0; 4], |said, _| found(said) == Some(42)))
    };
    let trial = Trial::of_calls(vec![
        way("data", "written-becomes-code"),
        way("writable code", "writable-code"),
        way("file", "file-becomes-code"),
    ])
    .in_run_alone()
    .alone(
        Alone::own("no exec gain (MDWE) alone", Own::NO_EXEC_GAIN, Stop::Errno(&[EACCES, EPERM]))
            .only(&["data", "writable code"]),
    );
    Attack::worker("A52", "makes code of what it has written", trial)
}

fn replaces_code() -> Attack {
    let way = |name, routine| {
        Way::new(name, move |_: &Stage, _: &Hostile| {
            Scene::routine(routine, [0; 4], |said, _| found(said) == Some(42))
        })
    };
    let trial = Trial::of_calls(vec![way("replaced", "code-is-replaced"), way("moved", "code-is-moved")])
        .in_run_alone()
        .alone(
            Alone::own("no exec gain (MDWE) alone", Own::NO_EXEC_GAIN, Stop::Errno(&[EACCES, EPERM]))
                .only(&["replaced"]),
        )
        .alone(Alone::own("sealed code (mseal) alone", Own::SEALED, Stop::Errno(&[EPERM])));
    Attack::worker("A53", "replaces or moves the code that the node has seen", trial)
}
