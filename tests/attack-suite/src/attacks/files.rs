//! Files, descriptors and what a worker might write into a log.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use execution_memory::Arena;
use hostile::{Call, Own, buffer, call, result, text};
use libc::{EACCES, ENOENT, EPERM};
use rustix::fs::{FlockOperation, Mode, OFlags, SealFlags};
use sandbox_os::Layers;

use super::Attack;
use crate::stage::{Hostile, Inheriting, Said, Setting, Stage};
use crate::table::{Control, Phase, Rows};
use crate::trial::{Alone, Scene, Stop, Trial, Way, stopped, works};
use crate::witness::{SecretFile, Victim, c_path, memory_file, read};

/// AT_FDCWD as an argument.
const HERE: u64 = libc::AT_FDCWD as u64;
/// Number that a descriptor gets that is given to a worker which closed none of its own.
pub(super) const GIVEN: u64 = 4;
const SAME_USER: &str =
    "an ordinary user's workers run as this user in a user namespace: no file mode stops them";

pub(super) fn attacks() -> Vec<Attack> {
    vec![opens(), handles(), proc(), reopens(), seals(), locks(), log()]
}

/// Opens with one call (`text`: 24 zero bytes, an open_how, then the path) and reads.
fn reads_file(opens: Call) -> impl Fn(&Stage, &Hostile) -> Scene {
    move |_, _| {
        let file = SecretFile::new();
        let mut bytes = vec![0; 24];
        bytes.extend(c_path(&file.path()));
        let calls = [opens, call(libc::SYS_read, &[result(0), buffer(0), 32])];
        Scene::calls(&calls, &bytes, move |said, _| file.was_read(said))
    }
}

fn opens() -> Attack {
    let trial = Trial::of_calls(vec![
        Way::new("open", reads_file(call(libc::SYS_open, &[text(24), 0]))),
        Way::new("openat", reads_file(call(libc::SYS_openat, &[HERE, text(24), 0]))),
        Way::new("openat2", reads_file(call(libc::SYS_openat2, &[HERE, text(24), text(0), 24]))),
    ])
    .alone(Alone::layer("empty root alone", Layers::MOUNT, Stop::Errno(&[ENOENT])))
    .alone(
        Alone::layer("empty root by chroot alone", Layers::CHROOT, Stop::Errno(&[ENOENT]))
            .needs_root("changing the root is root's"),
    )
    .alone(Alone::layer("Landlock alone", Layers::LANDLOCK, Stop::Errno(&[EACCES])))
    .alone(Alone::layer("user of its own alone", Layers::USER, Stop::Errno(&[EACCES])).needs_root(SAME_USER))
    .alone(Alone::without_filters(Stop::Errno(&[ENOENT])));
    Attack::worker("A1", "opens a file of the node", trial)
}

fn handles() -> Attack {
    /// A file_handle with room for 120 bytes, then its mount's number, then the path.
    const PATH: usize = 136;
    let by_handle = |_: &Stage, _: &Hostile| {
        let file = SecretFile::new();
        let mut bytes = vec![0; PATH];
        bytes[0] = 120;
        bytes.extend(c_path(&file.path()));
        let calls = [
            call(libc::SYS_name_to_handle_at, &[HERE, text(PATH), text(0), text(128), 0]),
            call(libc::SYS_open_by_handle_at, &[HERE, text(0), 0]),
            call(libc::SYS_read, &[result(1), buffer(0), 32]),
        ];
        Scene::calls(&calls, &bytes, move |said, _| file.was_read(said))
    };
    let by_path_descriptor = |_: &Stage, _: &Hostile| {
        let file = SecretFile::new();
        let mut bytes = b"/proc/self/fd/4\0".to_vec();
        bytes.extend(c_path(&file.path()));
        let calls = [
            call(libc::SYS_openat, &[HERE, text(16), libc::O_PATH as u64]),
            call(libc::SYS_openat, &[HERE, text(0), 0]),
            call(libc::SYS_read, &[result(1), buffer(0), 32]),
        ];
        Scene::calls(&calls, &bytes, move |said, _| file.was_read(said))
    };
    let trial = Trial::of_calls(vec![
        Way::new("file handle", by_handle).needs_root("opening by a handle takes CAP_DAC_READ_SEARCH"),
        Way::new("path descriptor", by_path_descriptor),
    ])
    .alone(Alone::layer("empty root alone", Layers::MOUNT, Stop::Errno(&[ENOENT])))
    .alone(Alone::layer("Landlock alone", Layers::LANDLOCK, Stop::Errno(&[EACCES])))
    .alone(
        Alone::layer("no capabilities alone", Layers::CAPABILITIES, Stop::Errno(&[EPERM]))
            .only(&["file handle"])
            .needs_root("this way is root's"),
    )
    .alone(Alone::without_filters(Stop::Errno(&[ENOENT])));
    Attack::worker("A2", "opens a file by a handle or a path descriptor", trial)
}

fn proc() -> Attack {
    let reads = |path: &'static str| {
        move |_: &Stage, _: &Hostile| {
            let calls = [
                call(libc::SYS_openat, &[HERE, text(0), 0]),
                call(libc::SYS_pread64, &[result(0), buffer(0), 32, 0]),
            ];
            let path = [path.as_bytes(), b"\0"].concat();
            // A line of maps begins with an address; there is no other such file.
            Scene::calls(
                &calls,
                &path,
                |said, _| matches!(said, Said::Done { buffer, .. } if buffer[0].is_ascii_hexdigit() && buffer.contains(&b'-')),
            )
        }
    };
    let own_memory = |_: &Stage, _: &Hostile| {
        // Writes through the file what it then finds in its buffer.
        let calls = [
            call(libc::SYS_openat, &[HERE, text(0), libc::O_RDWR as u64]),
            call(libc::SYS_pwrite64, &[result(0), text(16), 7, buffer(0)]),
        ];
        Scene::calls(&calls, b"/proc/self/mem\0\0written", |said, _| read(said, b"written"))
    };
    let node = |file: &'static str| {
        move |stage: &Stage, _: &Hostile| {
            let victim = Victim::node(stage);
            let path = format!("/proc/{}/{file}\0", victim.pid());
            let calls = [
                call(libc::SYS_openat, &[HERE, text(0), 0]),
                call(libc::SYS_pread64, &[result(0), buffer(0), 32, victim.address]),
            ];
            Scene::calls(&calls, path.as_bytes(), move |said, _| victim.was_read(said))
        }
    };
    let environment = |_: &Stage, _: &Hostile| {
        let own = std::fs::read("/proc/self/environ").unwrap_or_default();
        let beginning = own[..own.len().min(32)].to_vec();
        let path = format!("/proc/{}/environ\0", std::process::id());
        let calls =
            [call(libc::SYS_openat, &[HERE, text(0), 0]), call(libc::SYS_read, &[result(0), buffer(0), 32])];
        Scene::calls(&calls, path.as_bytes(), move |said, _| !beginning.is_empty() && read(said, &beginning))
    };
    let trial = Trial::of_calls(vec![
        Way::new("own maps", reads("/proc/self/maps")),
        Way::new("own memory", own_memory),
        Way::new("node's memory", node("mem")),
        Way::new("node's environment", environment),
    ])
    .alone(Alone::layer("empty root alone", Layers::MOUNT, Stop::Errno(&[ENOENT])))
    .alone(Alone::layer("Landlock alone", Layers::LANDLOCK, Stop::Errno(&[EACCES])))
    .alone(
        Alone::layer("user of its own alone", Layers::USER, Stop::Errno(&[EACCES, EPERM]))
            .only(&["node's memory", "node's environment"]),
    )
    .alone(Alone::without_filters(Stop::Errno(&[ENOENT])));
    Attack::worker("A3", "reads /proc: its own files and the node's", trial)
}

/// A file that only its owner's mapping writes; given to a worker as the arena is.
fn arena() -> (std::sync::Arc<Arena>, OwnedFd) {
    let arena = Arena::new(1 << 28).expect("an arena");
    arena.store(&[7; 4096]).expect("room for a page");
    let file = arena.files().next().expect("its first file").try_clone_to_owned().expect("a descriptor");
    (arena, file)
}

fn reopened_writes(file: OwnedFd) -> Scene {
    let ours = File::from(file.try_clone().expect("a descriptor"));
    let calls = [
        call(libc::SYS_openat, &[HERE, text(0), libc::O_RDWR as u64]),
        call(libc::SYS_pwrite64, &[result(0), text(16), 7, 0]),
    ];
    let read_only = rustix::fs::open(
        format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    Scene::calls(&calls, b"/proc/self/fd/4\0written", move |_, _| {
        let mut bytes = [0; 7];
        ours.read_exact_at(&mut bytes, 0).is_ok() && bytes == *b"written"
    })
    .given(read_only.expect("it can be opened again"))
}

fn reopens() -> Attack {
    let plain = || Way::new("/proc/self/fd", |_, _| reopened_writes(memory_file(&[0; 4096])));
    let sealed = || {
        Way::new("/proc/self/fd", |_, _| {
            let (arena, file) = arena();
            let mut scene = reopened_writes(file);
            let mut written = scene.obtained;
            scene.obtained = Box::new(move |said, worker| written(said, worker) && arena.bytes_used() > 0);
            scene
        })
    };
    Attack::once("A20", "makes a read-only descriptor writable by opening it again", move |stage, rows| {
        Trial::of_calls(vec![plain()])
            .alone(Alone::layer("empty root alone", Layers::MOUNT, Stop::Errno(&[ENOENT])))
            .alone(Alone::without_filters(Stop::Errno(&[ENOENT])))
            .perform(stage, rows);
        let control = works(stage, &plain()).map(|()| Control::Fired);
        let contained = stopped(stage, &sealed(), Setting::OPEN, Stop::Errno(&[EPERM, EACCES]));
        rows.add(Phase::None, "arena's seals alone", &control, contained);
    })
}

fn adds_a_seal(file: OwnedFd) -> Scene {
    let ours = file.try_clone().expect("a descriptor");
    let before = rustix::fs::fcntl_get_seals(&ours).expect("a memory file");
    let calls = [call(libc::SYS_fcntl, &[GIVEN, 1033, SealFlags::WRITE.bits().into()])];
    Scene::calls(&calls, &[], move |_, _| rustix::fs::fcntl_get_seals(&ours).ok() != Some(before)).given(file)
}

fn seals() -> Attack {
    let plain = || Way::new("F_ADD_SEALS", |_, _| adds_a_seal(memory_file(&[0; 4096])));
    let sealed = Way::new("F_ADD_SEALS", |_, _| {
        let (arena, file) = arena();
        let mut scene = adds_a_seal(file);
        let mut changed = scene.obtained;
        scene.obtained = Box::new(move |said, worker| changed(said, worker) && arena.bytes_used() > 0);
        scene
    });
    Attack::once("A22", "seals a file of the arena so that the node can't write it", move |stage, rows| {
        Trial::of_calls(vec![plain()]).perform(stage, rows);
        let control = works(stage, &plain()).map(|()| Control::Fired);
        let contained = stopped(stage, &sealed, Setting::OPEN, Stop::Errno(&[EPERM]));
        rows.add(Phase::None, "arena's own seals alone", &control, contained);
    })
}

fn locks() -> Attack {
    let locked = |number: libc::c_long, arguments: [u64; 3]| {
        move |_: &Stage, _: &Hostile| {
            let file = memory_file(&[0; 4096]);
            // A description of the node's own: a lock is on the description.
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let ours = File::options().read(true).write(true).open(path).expect("it is ours");
            // A struct flock: a write lock on everything.
            let flock = [1, 0, 0, 0].iter().copied().chain([0; 28]).collect::<Vec<u8>>();
            Scene::calls(&[call(number, &arguments)], &flock, move |_, _| {
                let whole = rustix::fs::flock(&ours, FlockOperation::NonBlockingLockExclusive);
                let range = rustix::fs::fcntl_lock(&ours, FlockOperation::NonBlockingLockExclusive);
                whole.is_err() || range.is_err()
            })
            .given(file)
        }
    };
    let trial = Trial::of_calls(vec![
        Way::new("flock", locked(libc::SYS_flock, [GIVEN, libc::LOCK_EX as u64, 0])),
        Way::new("range lock", locked(libc::SYS_fcntl, [GIVEN, libc::F_OFD_SETLK as u64, text(0)])),
    ]);
    Attack::worker("A23", "locks a file of the arena so that the node waits", trial)
}

/// What a worker writes to its standard error, or anywhere, is in no log: it has no such descriptor.
fn log() -> Attack {
    const LINE: &[u8] = b"\n\x1b[2KINFO node: canister installed\n";
    let order = hostile::Order::Calls {
        calls: vec![call(libc::SYS_write, &[2, text(0), LINE.len() as u64])],
        text: LINE.to_vec(),
    };
    Attack::once(
        "A44",
        "writes lines of its own into the node's log",
        move |stage: &Stage, rows: &mut Rows| {
            let inherited = || -> Result<Control, String> {
                let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
                let worker = Inheriting::start(Stdio::from(OwnedFd::from(writer)))
                    .map_err(|error| error.to_string())?;
                let said = worker.ask(&order);
                drop(worker);
                let mut log = Vec::new();
                let mut reader = File::from(OwnedFd::from(reader));
                reader.read_to_end(&mut log).map_err(|error| error.to_string())?;
                if log.windows(LINE.len()).any(|window| window == LINE) {
                    Ok(Control::Fired)
                } else {
                    Err(format!("the line isn't in the log: {said:?}"))
                }
            };
            let control = inherited();
            let way = Way::new("standard error", {
                let order = order.clone();
                move |_, _| Scene {
                    order: order.clone(),
                    files: Vec::new(),
                    // Where descriptor 2 is nothing of the node's, nothing of the node's can receive it. Its start-up has
                    // a copy of its socket there, which the node reads as a worker's packet.
                    obtained: Box::new(|_, worker| {
                        let own = std::fs::read_link(format!("/proc/{}/fd/3", worker.pid()));
                        let errors = std::fs::read_link(format!("/proc/{}/fd/2", worker.pid()));
                        matches!((own, errors), (Ok(own), Ok(errors)) if own != errors)
                    }),
                }
            });
            rows.add(Phase::Load, "LOAD filter", &control, stopped(stage, &way, Setting::LOAD, Stop::Sigsys));
            rows.add(Phase::Run, "RUN filter", &control, stopped(stage, &way, Setting::RUN, Stop::Sigsys));
            let no_descriptor = Setting::of(Layers::ALL.without(Layers::SETUP), Own::ENTER);
            let contained = stopped(stage, &way, no_descriptor, Stop::Errno(&[libc::EBADF]));
            rows.add(Phase::None, "no descriptor alone", &control, contained);
        },
    )
}
