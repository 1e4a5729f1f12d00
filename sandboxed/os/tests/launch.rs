//! Real workers, launched by the real launcher, attacked from inside and looked at from outside.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use sandbox_os::cgroup::Groups;
use sandbox_os::filter::{COMPILE, LOAD, RUN, Rule};
use sandbox_os::pull::Span;
use sandbox_os::verify::{self, Phase};
use sandbox_os::{Ended, LaunchedWorker, Launcher, Program, pull};

#[path = "../../images.rs"]
mod build;

/// Longest wait for anything that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// The kernel's numbers for system calls end well before this.
const CALLS: u16 = 600;
const FORBIDDEN: Ended = Ended::Signal(libc::SIGSYS);
const KILLED: Ended = Ended::Signal(libc::SIGKILL);
const LAUNCHER: &str = "bulkhead-launcher";
const PROBE: &str = "probe";
const COMPILER_PROBE: &str = "compiler_probe";
/// Where the images lie, for the run as an ordinary user, who can't build them.
const BUILT_IMAGES: &str = "BULKHEAD_TEST_IMAGES";

struct Images {
    launcher: Vec<u8>,
    probe: Vec<u8>,
    compiler_probe: Vec<u8>,
}

/// Launcher and probe, static as in the node, built once.
fn images() -> &'static Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    let read = |directory: &Path, file: &str| std::fs::read(directory.join(file)).expect("the build left it");
    IMAGES.get_or_init(|| {
        if let Some(directory) = std::env::var_os(BUILT_IMAGES).map(PathBuf::from) {
            let [launcher, probe, compiler_probe] =
                [LAUNCHER, PROBE, COMPILER_PROBE].map(|file| read(&directory, file));
            return Images { launcher, probe, compiler_probe };
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
        let build =
            |what: &[&str]| build::build(env!("CARGO"), Path::new(env!("CARGO_MANIFEST_DIR")), &target, what);
        build(&["--package", "sandbox-os", "--example", PROBE, "--example", COMPILER_PROBE]);
        let release = build(&["--package", "sandbox-launcher"]);
        let [probe, compiler_probe] =
            [PROBE, COMPILER_PROBE].map(|file| read(&release.join("examples"), file));
        Images { launcher: read(&release, LAUNCHER), probe, compiler_probe }
    })
}

fn launcher() -> Launcher {
    let programs: [&[u8]; 2] = [&images().probe, &images().compiler_probe];
    Launcher::start(&images().launcher, &programs).expect("the launcher starts")
}

/// One test at a time: some count this process's descriptors and children.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker that waits in the LOAD lock.
fn in_load(launcher: &Launcher) -> LaunchedWorker {
    let mut worker = launcher.launch(Program::Worker, false, None).expect("a worker starts");
    let said = receive(&worker);
    assert_eq!(said, Some(vec![0]), "the worker says that LOAD is on, or {}", worker.kill());
    worker
}

/// A compiler that waits for a module.
fn in_compile(launcher: &Launcher) -> LaunchedWorker {
    let mut compiler = launcher.launch(Program::Compiler, false, None).expect("a compiler starts");
    let said = receive(&compiler);
    assert_eq!(said, Some(vec![0]), "the compiler says that COMPILE is on, or {}", compiler.kill());
    compiler
}

/// A worker that waits in the RUN lock.
fn in_run(launcher: &Launcher) -> LaunchedWorker {
    let worker = in_load(launcher);
    assert_eq!(ask(&worker, b"R"), Some(vec![1]), "the worker says that RUN is on");
    worker
}

/// Every number outside the list kills. Two calls of the uprobe machinery pass every filter by the kernel's own rule
/// (since Linux 6.14 and 6.18); made by anything but a probe, one kills with SIGILL and the other does nothing.
fn every_call_outside(allowed: &[Rule], worker: impl Fn() -> LaunchedWorker) {
    const URETPROBE: u16 = 335;
    const UPROBE: u16 = 336;
    let allowed: BTreeSet<i64> = allowed.iter().map(|rule| rule.number).collect();
    for number in (0..CALLS).filter(|&number| !allowed.contains(&i64::from(number))) {
        let [low, high] = number.to_le_bytes();
        let mut worker = worker();
        let answer = ask(&worker, &[b'S', low, high]);
        let how = worker.kill();
        let expected = match number {
            URETPROBE => answer.is_none() && [FORBIDDEN, Ended::Signal(libc::SIGILL)].contains(&how),
            UPROBE => answer.is_some() || how == FORBIDDEN,
            _ => answer.is_none() && how == FORBIDDEN,
        };
        assert!(expected, "call {number}: {answer:?}, {how}");
    }
}

/// Sends an order and takes the answer; `None` when the worker died of it.
fn ask(worker: &LaunchedWorker, order: &[u8]) -> Option<Vec<u8>> {
    worker.socket.send(order, PATIENCE).expect("a live worker reads");
    receive(worker)
}

fn receive(worker: &LaunchedWorker) -> Option<Vec<u8>> {
    let mut buffer = [0; 64];
    match worker.socket.receive(&mut buffer, PATIENCE) {
        Ok(length) => Some(buffer[..length].to_vec()),
        Err(sandbox_os::SocketError::Closed) => None,
        Err(error) => panic!("the worker neither answers nor dies: {error}"),
    }
}

fn dies_of_sigsys(mut worker: LaunchedWorker, order: &[u8]) {
    assert_eq!(ask(&worker, order), None, "order {order:?} was answered");
    assert_eq!(worker.kill(), FORBIDDEN, "order {order:?}");
}

fn descriptor_count() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc is mounted").count()
}

/// Children of this process, zombies too.
fn children() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for task in std::fs::read_dir("/proc/self/task").expect("/proc is mounted") {
        let path = task.expect("a thread").path().join("children");
        // A thread may end meanwhile; its children then show up under another one.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        all.extend(text.split_whitespace().map(str::to_owned));
    }
    all
}

#[test]
fn a_worker_is_confined_in_both_phases_as_seen_from_outside() {
    let _turn = turn();
    let launcher = launcher();
    let worker = in_load(&launcher);
    verify::launched(&worker, Phase::Load, &[]).expect("LOAD holds");
    let early = verify::launched(&worker, Phase::Run, &[]).expect_err("RUN is not on yet");
    assert_eq!(early.layer, "number of seccomp filters");
    assert_eq!(ask(&worker, b"R"), Some(vec![1]));
    verify::launched(&worker, Phase::Run, &[]).expect("RUN holds");
    let off: Vec<_> = worker.layers.iter().filter(|layer| !layer.on).collect();
    println!("layers off: {off:?}");
    let environ = std::fs::read(format!("/proc/{}/environ", worker.pid)).expect("readable by the node");
    assert_eq!(environ, b"", "the environment is empty");
}

#[test]
fn an_unconfined_child_is_refused() {
    let _turn = turn();
    let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("cat starts");
    let uid = std::fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta));
    let refused = verify::worker(child.id() as i32, uid.expect("/proc is mounted"), Phase::Load);
    child.kill().expect("it runs");
    child.wait().expect("it is ours");
    assert_eq!(refused.expect_err("cat is not confined").layer, "seccomp filter mode");
}

#[test]
fn the_image_refuses_to_run_outside_a_launch() {
    let _turn = turn();
    let image = sandbox_os::image::sealed(&images().probe).expect("memory files work");
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&image));
    let status = Command::new(path).status().expect("it starts");
    assert_eq!(status.code(), Some(sandbox_os::lockdown::Exit::NotConfined as i32));
}

#[test]
fn every_system_call_outside_the_run_list_kills() {
    let _turn = turn();
    let launcher = launcher();
    every_call_outside(RUN, || in_run(&launcher));
}

#[test]
fn every_system_call_outside_the_compile_list_kills() {
    let _turn = turn();
    let launcher = launcher();
    every_call_outside(COMPILE, || in_compile(&launcher));
}

#[test]
fn a_compiler_is_confined_as_seen_from_outside_and_gets_no_executable_memory_and_no_clock() {
    let _turn = turn();
    let launcher = launcher();
    let compiler = in_compile(&launcher);
    verify::launched(&compiler, Phase::Load, &[]).expect("as a worker in LOAD");
    assert_eq!(ask(&compiler, &[b'F', 16]), Some(vec![1]), "the C heap works");
    let (read_write, private) = ((libc::PROT_READ | libc::PROT_WRITE) as u8, libc::MAP_PRIVATE as u8);
    assert_eq!(ask(&compiler, &[b'M', read_write, private]), Some(vec![3]), "COMPILE may take memory");
    for (protection, flags) in [
        (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE),
        (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE),
        (libc::PROT_READ, libc::MAP_PRIVATE),
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED),
    ] {
        dies_of_sigsys(in_compile(&launcher), &[b'M', protection as u8, flags as u8]);
    }
    for number in [libc::SYS_recvfrom, libc::SYS_sendto, libc::SYS_mmap, libc::SYS_mremap] {
        let [low, high, ..] = number.to_le_bytes();
        dies_of_sigsys(in_compile(&launcher), &[b'S', low, high]);
    }
    for clock in [b"T", b"V"] {
        let mut compiler = in_compile(&launcher);
        assert_eq!(ask(&compiler, clock), None, "a clock was read");
        assert!([Ended::Signal(libc::SIGSEGV), FORBIDDEN].contains(&compiler.kill()));
    }
}

#[test]
fn a_compiler_that_needs_more_memory_than_it_may_have_ends_with_a_code_of_its_own() {
    let _turn = turn();
    let launcher = launcher();
    let mut compiler = in_compile(&launcher);
    assert_eq!(ask(&compiler, &[b'F', 200]), None, "it had 64 MiB");
    assert_eq!(compiler.kill(), Ended::Exited(sandbox_os::lockdown::Exit::Memory as i32));
}

#[test]
fn every_system_call_outside_the_load_list_kills() {
    let _turn = turn();
    let launcher = launcher();
    every_call_outside(LOAD, || in_load(&launcher));
}

#[test]
fn calls_that_are_listed_with_arguments_kill_with_other_arguments() {
    let _turn = turn();
    let launcher = launcher();
    // recvfrom, sendto and mprotect on descriptor 0, or without flags. Zero arguments are fine for mprotect.
    for number in [libc::SYS_recvfrom, libc::SYS_sendto] {
        let [low, high, ..] = number.to_le_bytes();
        dies_of_sigsys(in_run(&launcher), &[b'S', low, high]);
        dies_of_sigsys(in_load(&launcher), &[b'S', low, high]);
    }
    for number in [libc::SYS_recvmsg, libc::SYS_statx, libc::SYS_prctl, libc::SYS_seccomp] {
        let [low, high, ..] = number.to_le_bytes();
        dies_of_sigsys(in_load(&launcher), &[b'S', low, high]);
    }
    let execute = [(libc::PROT_READ | libc::PROT_EXEC) as u8, libc::MAP_PRIVATE as u8];
    dies_of_sigsys(in_load(&launcher), &[b'M', execute[0], execute[1]]);
    let [read_write, shared] = [(libc::PROT_READ | libc::PROT_WRITE) as u8, libc::MAP_SHARED as u8];
    dies_of_sigsys(in_load(&launcher), &[b'M', read_write, shared]);
    // Shared memory is the arena's, which came as descriptor 1.
    dies_of_sigsys(in_load(&launcher), &[b'M', libc::PROT_READ as u8, shared]);
    let private = libc::MAP_PRIVATE as u8;
    assert_eq!(ask(&in_load(&launcher), &[b'M', read_write, private]), Some(vec![4]), "LOAD may map memory");
    dies_of_sigsys(in_run(&launcher), &[b'M', read_write, private]);
}

/// The file that a worker's code is mapped from: its inode.
fn image_of(worker: &LaunchedWorker) -> String {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", worker.pid)).expect("readable by the node");
    let code = maps.lines().find(|line| line.contains("r-xp") && line.contains("memfd:bulkhead"));
    code.and_then(|line| line.split_whitespace().nth(4)).expect("code of the image").to_owned()
}

#[test]
fn workers_with_private_images_share_no_page_of_code() {
    let _turn = turn();
    let launcher = launcher();
    let launch = |private| {
        let worker = launcher.launch(Program::Worker, private, None).expect("a worker starts");
        assert_eq!(receive(&worker), Some(vec![0]));
        worker
    };
    let workers = [false, false, true, true].map(launch);
    let [first, second, third, fourth] = workers.each_ref().map(image_of);
    assert_eq!(first, second, "the control: one file for all");
    assert!(third != first && fourth != first && third != fourth, "{third} {fourth}");
}

#[test]
fn what_the_node_s_parent_left_open_reaches_no_launcher_and_takes_no_worker_s_room() {
    let _turn = turn();
    // As many as a worker may have at all, none of them close-on-exec.
    let null = std::fs::File::open("/dev/null").expect("there is one");
    let inherited: Vec<_> = (0..16).map(|_| rustix::io::dup(&null).expect("a descriptor is free")).collect();
    let launcher = launcher();
    drop(inherited);
    // Its control groups' files take numbers too, where there are groups.
    let groups = Groups::of_this_process().ok();
    let group = groups.as_ref().map(|groups| groups.group(1 << 30).expect("a group can be made"));
    let mut worker =
        launcher.launch(Program::Worker, true, group).expect("there is room for its descriptors");
    assert_eq!(receive(&worker), Some(vec![0]), "{}", worker.kill());
    let open = std::fs::read_dir(format!("/proc/{}/fd", launcher.pid())).expect("it lives");
    let files = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let nulls = files.filter(|file| file == Path::new("/dev/null")).count();
    assert_eq!(nulls, 2, "standard output and standard error");
}

#[test]
fn code_is_sealed_under_run() {
    let _turn = turn();
    let launcher = launcher();
    let [read, execute] = [libc::PROT_READ as u8, (libc::PROT_READ | libc::PROT_EXEC) as u8];
    assert_eq!(ask(&in_load(&launcher), &[b'X', execute]), Some(vec![0]), "the control: LOAD lets it");
    assert_eq!(ask(&in_run(&launcher), &[b'X', read]), Some(vec![libc::EPERM as u8]), "RUN's filter lets it");
}

#[test]
fn the_32_bit_entry_kills() {
    let _turn = turn();
    let launcher = launcher();
    dies_of_sigsys(in_load(&launcher), b"3");
    dies_of_sigsys(in_run(&launcher), b"3");
}

#[test]
fn clocks_kill_though_they_need_no_system_call() {
    let _turn = turn();
    let launcher = launcher();
    // SIGSEGV; or SIGSYS, when a handler of the runtime for it goes on to make a call, and where the vDSO has to ask
    // the kernel for the time.
    for (clock, name) in [(b"T", "time-stamp counter"), (b"V", "vDSO")] {
        for mut worker in [in_load(&launcher), in_run(&launcher)] {
            assert_eq!(ask(&worker, clock), None, "the {name} was read");
            assert!([Ended::Signal(libc::SIGSEGV), FORBIDDEN].contains(&worker.kill()));
        }
    }
}

#[test]
fn the_heap_needs_no_system_call_under_run() {
    let _turn = turn();
    let launcher = launcher();
    assert_eq!(ask(&in_run(&launcher), b"H"), Some(vec![2]));
}

#[test]
fn pages_are_copied_out_and_a_lie_about_them_is_an_error() {
    let _turn = turn();
    let launcher = launcher();
    let worker = in_run(&launcher);
    let address = ask(&worker, &[b'P', 0xA7]).expect("an address");
    let address = u64::from_le_bytes(address.try_into().expect("eight bytes"));
    const PAGE: usize = 4096;
    let copy = |from: &[(u64, usize)], into: Vec<&mut [u8]>| {
        let from: Vec<Span> = from.iter().map(|&(address, bytes)| Span { address, bytes }).collect();
        pull::copy(worker.pid, &from, into)
    };
    let mut page = [0; PAGE];
    copy(&[(address, PAGE)], vec![&mut page]).expect("the page is there");
    assert_eq!(page, [0xA7; PAGE]);
    // Both sides may be cut as they like.
    let (mut first, mut second) = ([0; 1000], [0; PAGE - 1000]);
    let halves = [(address, 2000), (address + 2000, 0), (address + 2000, PAGE - 2000)];
    copy(&halves, vec![&mut first, &mut [], &mut second]).expect("the page is there");
    assert_eq!((first, second), ([0xA7; 1000], [0xA7; PAGE - 1000]));
    let (mut first, mut second) = ([0; PAGE], [0; PAGE]);
    let lie = copy(&[(address, PAGE), (4096, PAGE)], vec![&mut first, &mut second]);
    assert!(matches!(lie, Err(pull::PullError::Unmapped)), "{lie:?}");
    for nowhere in [u64::MAX - 100, u64::MAX - 2 * PAGE as u64, 1 << 47] {
        let lie = copy(&[(nowhere, PAGE)], vec![&mut first]);
        assert!(matches!(lie, Err(pull::PullError::Unmapped)), "{lie:?}");
    }
}

#[test]
fn more_ranges_than_one_call_takes_are_copied_in_order() {
    let _turn = turn();
    let launcher = launcher();
    let worker = in_run(&launcher);
    let address = ask(&worker, &[b'P', 0xA7]).expect("an address");
    let address = u64::from_le_bytes(address.try_into().expect("eight bytes"));
    let mut bytes = vec![0; 4096];
    // Every second byte of the page: 2048 ranges there, of one byte each, into 2048 ranges here.
    let from: Vec<Span> = (0..2048).map(|at| Span { address: address + 2 * at, bytes: 1 }).collect();
    pull::copy(worker.pid, &from, bytes.chunks_mut(2).map(|pair| &mut pair[..1]).collect()).unwrap();
    assert!(bytes.chunks(2).all(|pair| pair == [0xA7, 0]));
}

/// Where groups can be made, as root; `None`, said aloud, on a machine where even root can't.
fn groups_of_root() -> Option<Groups> {
    let groups = Groups::of_this_process();
    if let Err(error) = &groups {
        use std::io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
        assert!([NotFound, PermissionDenied, ReadOnlyFilesystem].contains(&error.kind()), "{error}");
        println!("no control groups on this machine: {error}");
    }
    groups.ok()
}

/// A worker in LOAD with a group of its own.
fn in_group(launcher: &Launcher, groups: &Groups, bytes: u64) -> LaunchedWorker {
    let group = groups.group(bytes).expect("root makes groups");
    let worker = launcher.launch(Program::Worker, false, Some(group)).expect("a worker starts");
    assert_eq!(receive(&worker), Some(vec![0]), "the worker says that LOAD is on");
    verify::launched(&worker, Phase::Load, &[]).expect("it is in its group");
    worker
}

#[test]
fn a_worker_that_takes_more_memory_than_its_group_may_dies_alone() {
    let _turn = turn();
    if !rustix::process::geteuid().is_root() {
        assert!(Groups::of_this_process().is_err(), "an ordinary user has no groups: the report names that");
        return;
    }
    const MIB: u64 = 1 << 20;
    let launcher = launcher();
    let Some(process) = groups_of_root() else { return };
    let groups = process.sharing(1 << 30).expect("in its own");
    let mut greedy = in_group(&launcher, &groups, 64 * MIB);
    let sibling = in_group(&launcher, &groups, 64 * MIB);
    assert_eq!(ask(&greedy, &[b'F', 200]), None, "200 MiB are more than 64");
    assert_eq!(greedy.kill(), KILLED);
    assert_eq!(ask(&sibling, &[b'F', 16]), Some(vec![8]), "its sibling lives");
    sibling.group().expect("it has one").limit_memory(400 * MIB).expect("more is always granted");
    assert_eq!(ask(&sibling, &[b'F', 200]), Some(vec![8]), "with the limit that a canister's code calls for");
    // The control: no group, no limit.
    assert_eq!(ask(&in_load(&launcher), &[b'F', 200]), Some(vec![8]));
}

#[test]
fn all_workers_together_take_no_more_memory_than_theirs() {
    let _turn = turn();
    if !rustix::process::geteuid().is_root() {
        println!("an ordinary user has no groups: the report names that");
        return;
    }
    const MIB: u64 = 1 << 20;
    let launcher = launcher();
    let Some(process) = groups_of_root() else { return };
    let groups = process.sharing(300 * MIB).expect("in its own");
    let mut workers = [(); 2].map(|()| in_group(&launcher, &groups, 1024 * MIB));
    assert_eq!(ask(&workers[0], &[b'K', 100]), Some(vec![9]), "100 of 300 MiB, kept");
    assert_eq!(ask(&workers[1], &[b'K', 250]), None, "the larger one goes");
    assert_eq!(workers[1].kill(), KILLED);
    assert_eq!(ask(&workers[0], b"R"), Some(vec![1]), "the other goes on");
}

#[test]
fn groups_go_with_their_workers_and_their_node() {
    let _turn = turn();
    if !rustix::process::geteuid().is_root() {
        println!("an ordinary user has no groups: the report names that");
        return;
    }
    let launcher = launcher();
    let Some(process) = groups_of_root() else { return };
    let groups = process.sharing(1 << 30).expect("in its own");
    let paths = |groups: &Groups| groups.directories().map(Path::to_path_buf).collect::<Vec<_>>();
    let (all, outer) = (paths(&groups), paths(&process));
    let inside = |at: &Path| {
        std::fs::read_dir(at).expect("there").flatten().filter(|entry| entry.path().is_dir()).count()
    };
    let workers = [(); 3].map(|()| in_group(&launcher, &groups, 1 << 26));
    assert!(!all.is_empty() && all.iter().all(|at| inside(at) == 3));
    drop(workers);
    assert!(all.iter().all(|at| inside(at) == 0), "groups of workers are left");
    drop((groups, process));
    assert!(all.iter().chain(&outer).all(|at| !at.exists()), "groups of the node are left");
}

#[test]
fn two_hundred_launches_leave_nothing_behind() {
    let _turn = turn();
    let launcher = launcher();
    drop(in_run(&launcher));
    let (descriptors, before) = (descriptor_count(), children());
    for _ in 0..200 {
        let mut worker = in_load(&launcher);
        assert_eq!(worker.kill(), KILLED);
    }
    assert_eq!(descriptor_count(), descriptors);
    let left: Vec<_> = children().difference(&before).cloned().collect();
    assert_eq!(left, Vec::<String>::new(), "children left, zombies or not");
    let open = std::fs::read_dir(format!("/proc/{}/fd", launcher.pid())).expect("ours").count();
    assert!(open < 10, "the launcher holds {open} descriptors");
}

#[test]
fn workers_outlive_their_launcher_and_a_new_one_gives_other_users() {
    let _turn = turn();
    let first = launcher();
    let worker = in_load(&first);
    drop(first);
    verify::launched(&worker, Phase::Load, &[]).expect("the launcher's end did not touch it");
    let second = launcher();
    let other = in_load(&second);
    if worker.layers.iter().any(|layer| layer.name == "user id of its own" && layer.on) {
        assert_ne!(worker.uid, other.uid);
    }
}

#[test]
fn a_worker_that_installed_another_filter_than_run_is_found_out() {
    let _turn = turn();
    let launcher = launcher();
    let (honest, other, early) = (in_run(&launcher), in_load(&launcher), in_load(&launcher));
    assert_eq!(ask(&other, b"L"), Some(vec![10]), "the LOAD filter a second time");
    // As many filters as in RUN: the number doesn't tell.
    verify::launched(&other, Phase::Run, &[]).expect("three filters");
    let has = |worker: &LaunchedWorker| launcher.has_filters_of_run(worker.pid);
    if !rustix::process::geteuid().is_root() {
        has(&honest).expect_err("filters are told to root alone");
        return;
    }
    assert!(has(&honest).expect("root may look"));
    assert!(!has(&other).expect("root may look"));
    assert!(!has(&early).expect("root may look"));
    // It goes on as if nobody had looked.
    assert_eq!(ask(&honest, b"H"), Some(vec![2]));
    has_no_tracer(&honest);
    assert!(launcher.has_filters_of_run(i32::MAX).is_err(), "there is no such process");
    in_load(&launcher);
}

fn has_no_tracer(worker: &LaunchedWorker) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid)).expect("it lives");
    assert!(status.contains("TracerPid:\t0\n"), "{status}");
}

#[test]
fn a_launcher_makes_a_successor_that_goes_on_when_it_is_gone() {
    let _turn = turn();
    let before = children();
    let first = launcher();
    let worker = in_load(&first);
    let second = first.successor().expect("a second launcher");
    assert_ne!(first.pid(), second.pid());
    drop(first);
    assert_eq!(ask(&worker, b"R"), Some(vec![1]), "a worker outlives the launcher that started it");
    let other = in_load(&second);
    verify::launched(&other, Phase::Load, &[]).expect("as confined as from the first");
    let third = second.successor().expect("as often as is needed");
    drop((second, worker, other));
    in_load(&third);
    drop(third);
    let left: Vec<_> = children().difference(&before).cloned().collect();
    assert_eq!(left, Vec::<String>::new(), "children left, zombies or not");
}

#[test]
fn a_dead_launcher_is_an_error_that_says_so() {
    let _turn = turn();
    let launcher = launcher();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(launcher.pid() as i32).expect("a process number"),
        rustix::process::Signal::KILL,
    )
    .expect("it is ours");
    let refused = launcher.launch(Program::Worker, false, None).expect_err("nobody answers");
    assert!(refused.to_string().contains("launcher"), "{refused}");
}

#[test]
fn workers_outlive_the_thread_that_started_the_launcher() {
    let _turn = turn();
    let (_launcher, worker) = std::thread::spawn(|| {
        let launcher = launcher();
        let worker = in_load(&launcher);
        (launcher, worker)
    })
    .join()
    .expect("the thread ends well");
    assert_eq!(ask(&worker, b"R"), Some(vec![1]), "still there");
}

#[test]
fn an_image_that_is_no_program_is_an_error_and_leaves_no_zombie() {
    let _turn = turn();
    let launcher = Launcher::start(&images().launcher, &[b"not a program"]).expect("the launcher starts");
    let refused = launcher.launch(Program::Worker, false, None).expect_err("the kernel can't execute it");
    assert!(refused.to_string().starts_with("exec of the worker image"), "{refused}");
    let launcher = launcher.pid().to_string();
    assert_eq!(
        children().into_iter().filter(|pid| *pid != launcher).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

#[test]
fn a_launch_without_room_for_its_descriptors_names_the_limit_and_leaves_no_process() {
    let _turn = turn();
    let launcher = launcher();
    drop(in_load(&launcher));
    let before = children();
    let (soft, hard) = limit_of_descriptors();
    // Room for none, then for one of the two.
    for room in 0..2 {
        let next = std::fs::File::open("/dev/null").expect("there is one");
        let free = std::os::fd::AsRawFd::as_raw_fd(&next) as u64;
        drop(next);
        set_limit_of_descriptors(free + room, hard);
        let refused = launcher.launch(Program::Worker, false, None);
        set_limit_of_descriptors(soft, hard);
        let refused = refused.expect_err("nowhere to put the descriptors");
        assert!(refused.to_string().contains("RLIMIT_NOFILE"), "{refused}");
        let left: Vec<_> = children().difference(&before).cloned().collect();
        assert_eq!(left, Vec::<String>::new(), "children left, zombies or not");
    }
    in_load(&launcher);
}

#[test]
fn a_node_that_was_started_with_sigchld_ignored_reaps_its_workers_all_the_same() {
    let _turn = turn();
    // Built first: cargo itself can't wait for its children without SIGCHLD.
    images();
    // SAFETY: no handler is involved; starting the launcher has to undo it.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let launcher = launcher();
    assert_eq!(in_load(&launcher).kill(), KILLED);
}

fn limit_of_descriptors() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid rlimit structure.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    (limit.rlim_cur, limit.rlim_max)
}

fn set_limit_of_descriptors(soft: u64, hard: u64) {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: a valid rlimit structure.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// As root in most containers: without CAP_SYS_ADMIN there are no namespaces and no mounts.
#[test]
fn root_without_namespaces_gets_workers_in_a_root_that_was_removed() {
    let _turn = turn();
    if !rustix::process::geteuid().is_root() {
        println!("an ordinary user has namespaces of its own, or no workers");
        return;
    }
    const WITHOUT: &str = "BULKHEAD_TEST_WITHOUT_SYS_ADMIN";
    const SYS_ADMIN: libc::c_ulong = 21;
    if std::env::var_os(WITHOUT).is_none() {
        images();
        let mut again = Command::new("/proc/self/exe");
        again
            .args(["--exact", "root_without_namespaces_gets_workers_in_a_root_that_was_removed"])
            .env(WITHOUT, "1");
        // SAFETY: prctl with constant arguments, between fork and exec: what is exec'ed doesn't get it.
        unsafe {
            again.pre_exec(|| match libc::prctl(libc::PR_CAPBSET_DROP, SYS_ADMIN, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let output = again.output().expect("this program starts again");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let launcher = launcher();
    let worker = in_load(&launcher);
    verify::launched(&worker, Phase::Load, &[]).expect("LOAD holds");
    assert_eq!(ask(&worker, b"R"), Some(vec![1]), "and RUN");
    verify::launched(&worker, Phase::Run, &[]).expect("RUN holds");
    let on = |name: &str| worker.layers.iter().any(|layer| layer.name == name && layer.on);
    assert!(on("empty root by chroot") && on("user id of its own"), "{:?}", worker.layers);
    assert!(!on("mount namespace, empty root") && !on("pid namespace"), "the missing layers are named");
    let root = format!("/proc/{}/root", worker.pid);
    assert!(std::fs::read_link(&root).expect("readable by root").to_string_lossy().ends_with("(deleted)"));
    assert_eq!(std::fs::read_dir(root + "/").expect("a directory").count(), 0, "and empty");
}

/// The two tests that matter most once more, by this program again, as user 65534.
#[test]
fn an_ordinary_user_gets_confined_workers_too() {
    let _turn = turn();
    if !rustix::process::geteuid().is_root() {
        println!("already an ordinary user: the other tests are this one");
        return;
    }
    let place = tempfile::tempdir().expect("room for the images");
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("ours");
    std::fs::write(place.path().join(LAUNCHER), &images().launcher).expect("room for the images");
    std::fs::write(place.path().join(PROBE), &images().probe).expect("room for the images");
    std::fs::write(place.path().join(COMPILER_PROBE), &images().compiler_probe).expect("room for the images");
    let output = Command::new("/proc/self/exe")
        .args(["--exact", "--test-threads=1", "--nocapture"])
        .args([
            "a_worker_is_confined_in_both_phases_as_seen_from_outside",
            "pages_are_copied_out_and_a_lie_about_them_is_an_error",
        ])
        .env(BUILT_IMAGES, place.path())
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .expect("this program starts again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("2 passed"), "{text}");
    assert!(text.contains("user id of its own\", on: false"), "the missing layer is named: {text}");
}
