//! What the node shares with workers, and what it copies from them: files that are cut short, emptied or written after
//! a commit, memory that changes while it is read, holes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use execution_memory::{Arena, PAGE_BYTES, PageVersion};
use hostile::{Own, call, result, text};
use libc::{EPERM, MAP_SHARED, PROT_READ, PROT_WRITE};
use sandbox_os::Layers;
use sandbox_os::pull::{self, Span};

use crate::attacks::Attack;
use crate::attacks::life::STAND_IN;
use crate::stage::{Hostile, Said, Setting, Stage};
use crate::table::{Control, Phase, Rows};
use crate::trial::{Scene, Stop, Way, stopped, works};

/// The number under which a worker has what it is given.
const GIVEN: u64 = super::super::files::GIVEN;
const PAGE: [u8; PAGE_BYTES] = [7; PAGE_BYTES];

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        with_seals("A17", "cuts a shared file short so that the node dies of SIGBUS", cuts(), true),
        written_after_a_commit(),
        with_seals("A19", "empties pages of a shared file", empties(), false),
        sparse(),
        changes_while_read(
            "A24",
            "changes its memory between check and use",
            "one copy, and only that is used",
        ),
        charged_to_others(),
    ]
}

/// A memory file of one page that can be resized and written.
pub(super) fn plain_file() -> OwnedFd {
    let file =
        rustix::fs::memfd_create("shared", rustix::fs::MemfdFlags::CLOEXEC).expect("memory files work");
    let file = std::fs::File::from(file);
    file.write_all_at(&PAGE, 0).expect("there is memory");
    file.into()
}

fn copy(file: impl AsFd) -> OwnedFd {
    file.as_fd().try_clone_to_owned().expect("a descriptor can be had")
}

/// Whether the first page of a file is not what it was.
fn changed(file: &OwnedFd) -> bool {
    let mut page = [0; PAGE_BYTES];
    let file = std::fs::File::from(copy(file));
    file.read_exact_at(&mut page, 0).is_err() || page != PAGE
}

type Calls = Vec<(&'static str, Vec<hostile::Call>)>;

/// Ways to do the same to a file: one of nobody's, and one of an arena.
fn ways(calls: &Calls) -> [Vec<Way>; 2] {
    let plain = calls.iter().cloned().map(|(name, calls)| {
        Way::new(name, move |_: &Stage, _: &Hostile| {
            let file = plain_file();
            let ours = copy(&file);
            Scene::calls(&calls, &[9; 16], move |_, _| changed(&ours)).given(file)
        })
    });
    let sealed = calls.iter().cloned().map(|(name, calls)| {
        Way::new(name, move |_: &Stage, _: &Hostile| {
            let (arena, version) = committed();
            let file = copy(arena.files().next().expect("a segment"));
            Scene::calls(&calls, &[9; 16], move |_, _| {
                // The node itself still reads what it committed.
                arena.bytes_used() == 0 || *version.bytes() != PAGE
            })
            .given(file)
        })
    });
    [plain.collect(), sealed.collect()]
}

fn committed() -> (Arc<Arena>, PageVersion) {
    let arena = Arena::new(1 << 20).expect("there is memory");
    let version = arena.store(&PAGE).expect("there is memory");
    (arena, version)
}

fn cuts() -> Calls {
    vec![("ftruncate", vec![call(libc::SYS_ftruncate, &[GIVEN, 0])])]
}

fn empties() -> Calls {
    let map = call(libc::SYS_mmap, &[0, 4096, (PROT_READ | PROT_WRITE) as u64, MAP_SHARED as u64, GIVEN, 0]);
    vec![
        ("fallocate", vec![call(libc::SYS_fallocate, &[GIVEN, 3, 0, 4096])]),
        ("madvise", vec![map, call(libc::SYS_madvise, &[result(0), 4096, libc::MADV_REMOVE as u64])]),
    ]
}

/// Ways to attack a plain file, in both phases under the filters, and the same ways against an arena's seals alone.
fn by_filters_and_seals(
    stage: &Stage,
    rows: &mut Rows,
    control: &Result<Control, String>,
    [plain, sealed]: [&[Way]; 2],
) {
    for (phase, setting, name) in
        [(Phase::Load, Setting::LOAD, "LOAD filter"), (Phase::Run, Setting::RUN, "RUN filter")]
    {
        let contained = plain.iter().try_for_each(|way| stopped(stage, way, setting, Stop::Sigsys));
        rows.add(phase, name, control, contained);
    }
    let contained =
        sealed.iter().try_for_each(|way| stopped(stage, way, Setting::OPEN, Stop::Errno(&[EPERM])));
    rows.add(Phase::None, "arena's seals alone", control, contained);
}

/// In both phases by the filters, and by the seals of an arena alone.
fn with_seals(id: &'static str, title: &'static str, calls: Calls, kills: bool) -> Attack {
    Attack::once(id, title, move |stage, rows| {
        let [plain, sealed] = ways(&calls);
        let mut control = plain.iter().try_for_each(|way| works(stage, way)).map(|()| Control::Fired);
        if kills && control.is_ok() {
            control = a_parent_dies();
        }
        by_filters_and_seals(stage, rows, &control, [&plain, &sealed]);
    })
}

/// The control of A17: a parent that maps a file without seals dies of reading it.
fn a_parent_dies() -> Result<Control, String> {
    let status = Command::new("/proc/self/exe").args([STAND_IN, "maps"]).status();
    match status.map(|status| status.signal()) {
        Ok(Some(libc::SIGBUS)) => Ok(Control::Fired),
        other => Err(format!("a parent of an unsealed file lives: {other:?}")),
    }
}

/// What that parent does: it maps a file, somebody cuts it short, and it reads.
pub(super) fn maps() {
    let file = plain_file();
    // SAFETY: a fresh mapping at an address of the kernel's choosing.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, PROT_READ, MAP_SHARED, file.as_raw_fd(), 0) };
    let _cut = rustix::fs::ftruncate(&file, 0);
    // SAFETY: mapped above; what happens at this read is what is asked for.
    let byte = unsafe { page.cast::<u8>().read_volatile() };
    println!("{byte}");
}

fn written_after_a_commit() -> Attack {
    let calls: Calls = vec![
        ("pwrite", vec![call(libc::SYS_pwrite64, &[GIVEN, text(0), 16, 0])]),
        (
            "read into a mapping",
            vec![
                call(
                    libc::SYS_mmap,
                    &[0, 4096, (PROT_READ | PROT_WRITE) as u64, MAP_SHARED as u64, GIVEN, 0],
                ),
                call(libc::SYS_getrandom, &[result(0), 16, 0]),
            ],
        ),
    ];
    Attack::once("A18", "writes a page after it was committed", move |stage, rows| {
        let [plain, sealed] = ways(&calls);
        let control = plain.iter().try_for_each(|way| works(stage, way)).map(|()| Control::Fired);
        by_filters_and_seals(stage, rows, &control, [&plain, &sealed]);
        flips(rows, "the node's own copy");
    })
}

fn changes_while_read(id: &'static str, title: &'static str, stopped_by: &'static str) -> Attack {
    Attack::once(id, title, move |_, rows| flips(rows, stopped_by))
}

/// Memory that never stops changing is copied and committed.
fn flips(rows: &mut Rows, stopped_by: &str) {
    const WORDS: usize = PAGE_BYTES / 8;
    const TIMES: usize = 500;
    let live: Arc<Vec<AtomicU64>> = Arc::new((0..2 * WORDS).map(|_| AtomicU64::new(0)).collect());
    // A whole page of it.
    let skip = live.as_ptr().align_offset(PAGE_BYTES);
    let (flipped, over) = (Arc::clone(&live), Arc::new(AtomicBool::new(false)));
    let done = Arc::clone(&over);
    let attacker = std::thread::spawn(move || {
        let mut value = 0;
        while !done.load(Ordering::Relaxed) {
            value += 1;
            flipped[skip..skip + WORDS].iter().for_each(|word| word.store(value, Ordering::Relaxed));
        }
    });
    let page = &live[skip..skip + WORDS];
    // The control: who checks what lies there and then uses what lies there has seen two things.
    let differs = |_| page[7].load(Ordering::SeqCst) != page[7].load(Ordering::SeqCst);
    let control = match (0..1_000_000_000_u64).any(differs) {
        true => Ok(Control::Fired),
        false => Err("two looks at live memory are always the same".to_owned()),
    };
    let contained = (0..TIMES).try_for_each(|_| {
        let shown = |error: &dyn std::fmt::Display| error.to_string();
        let arena = Arena::new(1 << 16).map_err(|error| shown(&error))?;
        let mut staged = arena.stage(1).map_err(|error| shown(&error))?;
        let from = [Span { address: page.as_ptr().addr() as u64, bytes: PAGE_BYTES }];
        let own = std::process::id().cast_signed();
        pull::copy(own, &from, staged.ranges_mut()).map_err(|error| shown(&error))?;
        let version = staged.finish().pop().ok_or("no version")?;
        let checked = *version.bytes();
        let now = page[7].load(Ordering::SeqCst);
        // Until it has changed there.
        while page[7].load(Ordering::SeqCst) == now {
            std::hint::spin_loop();
        }
        if *version.bytes() == checked { Ok(()) } else { Err("what was committed changed".to_owned()) }
    });
    over.store(true, Ordering::Relaxed);
    let _panicked = attacker.join();
    rows.add(Phase::None, stopped_by, &control, contained);
}

/// Bytes that a memory file holds.
fn held(file: &std::fs::File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.blocks() * 512)
}

/// A file with a hole of `bytes`.
fn hole(bytes: u64) -> std::fs::File {
    let file = rustix::fs::memfd_create("hole", rustix::fs::MemfdFlags::CLOEXEC).expect("memory files work");
    let file = std::fs::File::from(file);
    file.set_len(bytes).expect("a hole costs nothing");
    file
}

fn sparse() -> Attack {
    const BYTES: u64 = 64 << 20;
    Attack::once("A21", "claims that 4 GiB of nothing were written", |_, rows| {
        // Who reads a hole through a mapping pays for it.
        let file = hole(BYTES);
        let flags = MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a fresh mapping, given back at once.
        unsafe {
            let all = libc::mmap(std::ptr::null_mut(), BYTES as usize, PROT_READ, flags, file.as_raw_fd(), 0);
            libc::munmap(all, BYTES as usize);
        }
        let control = match held(&file) {
            bytes if bytes >= BYTES => Ok(Control::Fired),
            bytes => Err(format!("a hole that was read through a mapping holds {bytes} bytes")),
        };
        rows.add(Phase::None, "bounds of a canister's memory", &control, super::replies::claims_four_gib());
    })
}

/// A worker has the node pay for memory: it reads all of the sparse window, whose pages then exist.
fn charged_to_others() -> Attack {
    const BYTES: u64 = 256 << 20;
    let way = || {
        Way::new("reads a hole", move |_: &Stage, _: &Hostile| {
            let file = hole(BYTES);
            let flags = (MAP_SHARED | libc::MAP_POPULATE) as u64;
            let order = [call(libc::SYS_mmap, &[0, BYTES, PROT_READ as u64, flags, GIVEN, 0])];
            let seen = file.try_clone().expect("a descriptor can be had");
            Scene::calls(&order, &[], move |_: &Said, _| held(&seen) >= BYTES).given(OwnedFd::from(file))
        })
    };
    Attack::once("A46", "has memory charged to the node", move |stage, rows| {
        let control = works(stage, &way()).map(|()| Control::Fired);
        rows.add(Phase::Run, "RUN filter", &control, stopped(stage, &way(), Setting::RUN, Stop::Sigsys));
        if !stage.has_groups() {
            rows.reduced("control group", "this user can't make control groups");
            return;
        }
        // Whoever touches a page first pays for it, and its group has no more than it may have.
        rows.add(
            Phase::Load,
            "control group",
            &control,
            stopped(stage, &way(), Setting::LOAD, Stop::NoEffect),
        );
        let alone = Setting::of(Layers::CGROUP, Own::NOTHING);
        rows.add(Phase::None, "control group", &control, stopped(stage, &way(), alone, Stop::NoEffect));
    })
}
