//! Each rule of a filter, each condition of a rule and each layer, taken away: something must be seen to get through.

use std::os::unix::fs::PermissionsExt;

use attack_suite::attacks::program;
use attack_suite::faults_on_cpuid;
use attack_suite::perturbed::{needed, perturbed};
use attack_suite::stage::{SIGSYS, Said, Setting, Stage};
use attack_suite::trial::{Scene, Way, attempt};
use attack_suite::witness::{self, SecretFile, Victim, c_path, found, read, status};
use hostile::{Call, Change, List, Order, Own, call, result, text};
use sandbox_os::Layers;
use sandbox_os::filter::SETUP;

/// One filter and nothing else.
fn alone(list: List) -> Setting {
    let own = match list {
        List::Load => Own::LOAD,
        List::Run => Own::RUN,
    };
    Setting::of(Layers::NONE, own)
}

/// Whether a worker under a filter survives a call, or dies of anything but the filter.
fn passes(stage: &Stage, setting: Setting, made: Call) -> bool {
    let mut worker = stage.worker(setting).expect("a worker starts");
    let order = |call| Order::Calls { calls: vec![call], text: vec![0; 64] };
    worker.tell(&order(made), &[]);
    // Something to receive, for calls that receive.
    worker.tell(&Order::routine("held", [0; 4]), &[]);
    let said = worker.answer();
    assert_ne!(said, Said::Silent, "{made:x?}");
    said != Said::Died(SIGSYS)
}

/// Whether a worker gets as far as making a call under a filter that lacks a rule, and survives it.
fn passes_without(stage: &Stage, setting: Setting, made: Call) -> bool {
    // A rule may be one that the worker needs to hear of the call at all.
    stage.worker(setting).is_ok() && passes(stage, setting, made)
}

fn every_rule_is_needed_and_every_condition_decides(list: List) {
    let stage = Stage::new();
    for (rule, call) in needed(list) {
        assert!(passes(&stage, alone(list), call), "{list:?} rule {rule} allows {call:x?}");
        let removed = alone(list).with(Change::Without(list, rule));
        assert!(!passes_without(&stage, removed, call), "{list:?} without rule {rule} forbids {call:x?}");
    }
    let mut widened = None;
    for broken in perturbed(list) {
        let (rule, condition) = (broken.rule, broken.condition);
        assert!(!passes(&stage, alone(list), broken.call), "{list:?} forbids {broken:x?}");
        // One call a condition shows that it is this one that forbids.
        if widened.replace((rule, condition)) != Some((rule, condition)) {
            let wider = alone(list).with(Change::Wider(list, rule, condition));
            assert!(passes(&stage, wider, broken.call), "{list:?}, wider, allows {broken:x?}");
        }
    }
}

#[test]
fn a_rule_of_load_that_is_missing_or_wider_is_noticed() {
    every_rule_is_needed_and_every_condition_decides(List::Load);
}

#[test]
fn a_rule_of_run_that_is_missing_or_wider_is_noticed() {
    every_rule_is_needed_and_every_condition_decides(List::Run);
}

#[test]
fn each_call_that_setup_denies_kills_and_is_answered_without_it() {
    let stage = Stage::new();
    // Without rights, so that no call has an effect.
    let without = Setting::of(Layers::USER | Layers::CAPABILITIES, Own::NOTHING);
    for rule in SETUP {
        let made = call(rule.number, &[]);
        let filtered = Setting::of(Layers::SETUP, Own::NOTHING);
        assert!(!passes(&stage, filtered, made), "{} kills under SETUP", rule.name);
        // Two processes that answer would be one too many; attack A5 makes them.
        if ![libc::SYS_fork, libc::SYS_vfork].contains(&rule.number) {
            assert!(passes(&stage, without, made), "{} is answered without SETUP", rule.name);
        }
    }
}

/// The attack by which a missing layer shows, and the other layers that would stop it too.
struct Designated {
    layer: Layers,
    name: &'static str,
    also: Layers,
    root: bool,
    way: Way,
}

fn designated() -> Vec<Designated> {
    let opens = || {
        Way::new("opens a file", |_, _| {
            let file = SecretFile::new();
            let calls = [
                call(libc::SYS_openat, &[libc::AT_FDCWD as u64, text(0), 0]),
                call(libc::SYS_read, &[result(0), hostile::buffer(0), 32]),
            ];
            Scene::calls(&calls, &c_path(&file.path()), move |said, _| file.was_read(said))
        })
    };
    let signals = Way::new("signals the node", |stage, _| {
        let mut victim = Victim::node(stage);
        let calls = [call(libc::SYS_tkill, &[victim.pid(), libc::SIGTERM as u64])];
        Scene::calls(&calls, &[], move |_, _| victim.harmed())
    });
    let sends = Way::new("sends a datagram", |_, _| {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        receiver.set_nonblocking(true).expect("it is ours");
        let port = receiver.local_addr().expect("it is bound").port().to_be_bytes();
        let address = [2, 0, port[0], port[1], 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let calls = [
            call(libc::SYS_socket, &[libc::AF_INET as u64, libc::SOCK_DGRAM as u64, 0]),
            call(libc::SYS_sendto, &[result(0), text(0), 2, 0, text(0), 16]),
        ];
        Scene::calls(&calls, &address, move |_, _| receiver.recv(&mut [0; 8]).is_ok())
    });
    let queue = Way::new("finds a message queue of the node's", |_, _| {
        const KEY: i32 = 0x7EAD;
        // SAFETY: makes a queue; no memory is involved.
        let queue = unsafe { libc::msgget(KEY, libc::IPC_CREAT | 0o666) };
        assert_ne!(queue, -1, "a queue is made");
        Scene::calls(&[call(libc::SYS_msgget, &[KEY as u64, 0])], &[], move |said, _| {
            // SAFETY: removes the queue that was made above.
            unsafe { libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut()) };
            found(said) == Some(queue as u64)
        })
    });
    let name = Way::new("reads the machine's name", |_, _| {
        const NODE_NAME: usize = 65;
        let machine = rustix::system::uname().nodename().to_bytes().to_vec();
        let calls = [call(libc::SYS_uname, &[hostile::buffer(0)])];
        Scene::calls(&calls, &[], move |said, _| match said {
            Said::Done { buffer, .. } => buffer[NODE_NAME..].starts_with(&machine),
            _ => false,
        })
    });
    let group_tree = Way::new("is in the node's tree of control groups", |_, _| {
        Scene::routine("held", [0; 4], |_, worker| {
            let of = |pid| witness::namespace(pid, "cgroup");
            of(worker.pid()) == of(std::process::id() as i32)
        })
    });
    let another = Way::new("becomes another user", |_, _| {
        const ANOTHER: u64 = 2_000_000_001;
        Scene::calls(&[call(libc::SYS_setuid, &[ANOTHER])], &[], |_, worker| {
            status(worker.pid(), "Uid").starts_with(&ANOTHER.to_string())
        })
    });
    let writes = Way::new("executes what it has written", |_, _| {
        let program = program();
        let calls = [
            call(libc::SYS_memfd_create, &[text(0), 0]),
            call(libc::SYS_write, &[result(0), text(2), program.len() as u64]),
            call(libc::SYS_execveat, &[result(0), text(1), 0, 0, libc::AT_EMPTY_PATH as u64]),
        ];
        Scene::calls(&calls, &[b"p\0", program.as_slice()].concat(), |said, _| read(said, b"executed"))
    });
    let set_user = Way::new("executes a program that root has marked set-user-id", |_, _| {
        let place = tempfile::tempdir().expect("room for temporary files");
        let path = place.path().join("program");
        std::fs::write(&path, program()).expect("room for temporary files");
        for (path, mode) in [(place.path(), 0o755), (path.as_path(), 0o4755)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
        }
        let calls = [call(libc::SYS_execve, &[text(0), 0, 0])];
        Scene::calls(&calls, &c_path(&path), move |said, worker| {
            let effective = status(worker.pid(), "Uid").split_whitespace().nth(1) == Some("0");
            place.path().exists() && read(said, b"executed") && effective
        })
    });
    let unshares = Way::new("makes a user namespace", |_, worker| {
        let before = witness::namespace(worker.pid(), "user");
        Scene::calls(&[call(libc::SYS_unshare, &[libc::CLONE_NEWUSER as u64])], &[], move |_, worker| {
            let now = witness::namespace(worker.pid(), "user");
            now.is_some() && now != before
        })
    });
    let forks = Way::new("makes a process", |_, _| {
        Scene::routine("children", [libc::SYS_clone as u64, 2, 0, 0], |_, worker| {
            witness::children(worker.pid()) > 0
        })
    });
    let of = |layer, name, also, root, way| Designated { layer, name, also, root, way };
    let none = Layers::NONE;
    vec![
        of(Layers::USER, "USER", Layers::MOUNT | Layers::LANDLOCK, true, opens()),
        of(Layers::MOUNT, "MOUNT", Layers::USER | Layers::LANDLOCK, false, opens()),
        of(Layers::CHROOT, "CHROOT", Layers::MOUNT | Layers::USER | Layers::LANDLOCK, true, opens()),
        of(Layers::LANDLOCK, "LANDLOCK", Layers::USER | Layers::MOUNT, false, opens()),
        of(Layers::PID, "PID", Layers::USER | Layers::LANDLOCK, false, signals),
        of(Layers::NET, "NET", Layers::SETUP, false, sends),
        of(Layers::IPC, "IPC", none, false, queue),
        of(Layers::UTS, "UTS", none, false, name),
        of(Layers::CGROUP_NAMESPACE, "CGROUP_NAMESPACE", none, false, group_tree),
        of(Layers::CAPABILITIES, "CAPABILITIES", Layers::USER, true, another),
        of(Layers::LIMITS, "LIMITS", none, false, writes),
        of(
            Layers::NO_NEW_PRIVS,
            "NO_NEW_PRIVS",
            // The first two hide the file; the others bring no_new_privs with them.
            Layers::MOUNT | Layers::LANDLOCK | Layers::SETUP,
            true,
            set_user,
        ),
        of(Layers::SETUP, "SETUP", none, false, unshares),
        of(Layers::CGROUP, "CGROUP", Layers::LIMITS, true, forks),
    ]
}

#[test]
fn every_layer_that_is_missing_is_noticed() {
    let stage = Stage::new();
    let designated = designated();
    let named = designated.iter().fold(Layers::NONE, |named, one| named | one.layer);
    assert_eq!(named, Layers::ALL | Layers::CHROOT, "every layer has its attack");
    for Designated { layer, name, also, root, way } in designated {
        if root && !stage.root {
            println!("{name}: not for an ordinary user: {}", way.name);
            continue;
        }
        // Changing the root is there for where there are no mount namespaces.
        let all = if layer == Layers::CHROOT { Layers::ALL | Layers::CHROOT } else { Layers::ALL };
        let with = all.without(also);
        let (obtained, said) = attempt(&stage, &way, Setting::of(with, Own::NOTHING)).expect("a worker");
        assert!(!obtained, "{name} alone stops that it {}: {said:?}", way.name);
        let without = Setting::of(with.without(layer), Own::NOTHING);
        let (obtained, said) = attempt(&stage, &way, without).expect("a worker");
        assert!(obtained, "without {name}, it {}: {said:?}", way.name);
    }
}

#[test]
fn a_worker_that_leaves_its_own_defences_out_is_noticed() {
    let stage = Stage::new();
    let reads = |name, routine| {
        Way::new(name, move |_, _| Scene::routine(routine, [0; 4], |said, _| found(said).is_some()))
    };
    let code = |name, routine| {
        Way::new(name, move |_, _| Scene::routine(routine, [0; 4], |said, _| found(said) == Some(42)))
    };
    let of = |own| Setting::of(Layers::NONE, own);
    for (own, way) in [
        (Own::CLOCKS, reads("reads the time-stamp counter", "time-stamp-counter")),
        (Own::CLOCKS, reads("reads the clock of the vDSO", "vdso-clock")),
        (Own::CLOCKS, reads("asks for the processor", "cpuid")),
        (Own::NO_EXEC_GAIN, code("makes code of data", "written-becomes-code")),
        (Own::SEALED, code("moves its code", "code-is-moved")),
        (Own::LOAD, reads("reads the page of the kernel's clock", "vsyscall-clock")),
        (Own::RUN, reads("reads the page of the kernel's clock", "vsyscall-clock")),
    ] {
        let (obtained, said) = attempt(&stage, &way, of(own)).expect("a worker");
        // The one defence that not every processor has: where it is missing, nothing is claimed.
        let is_missing = way.name == "asks for the processor" && !faults_on_cpuid();
        assert_eq!(obtained, is_missing, "{own:?} stops that it {}: {said:?}", way.name);
        let (obtained, said) = attempt(&stage, &way, of(Own::NOTHING)).expect("a worker");
        assert!(obtained, "without {own:?}, it {}: {said:?}", way.name);
    }
}
