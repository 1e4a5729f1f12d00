//! What happens when workers, memory, descriptors or processes run short: idle workers go in their order, busy
//! ones stay, and a message that can't run says which limit it met and runs later.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use execution::memory::limit;
use execution::{Backend, BackendError, EntryPoint, Execution, Snapshot};
use sandbox_host::source::{WorkerProcess, WorkerSource};
use sandbox_host::{Evictions, Role, SandboxOptions, SandboxStatus, Sandboxed};
use sandbox_protocol::ToNode;

use crate::canister::{invocation, principal, tried, update};
use crate::leases::{paused, pausing};
use crate::peer::{Peers, finished, greetings, snapshot};

const MIB: u64 = 1 << 20;
const NEVER: Duration = Duration::from_secs(3600);

fn options(worker_memory_bytes_max: u64) -> SandboxOptions {
    SandboxOptions {
        pool: 0,
        worker_memory_bytes_max: Some(worker_memory_bytes_max),
        housekeeping: Duration::from_millis(1),
        ..SandboxOptions::default()
    }
}

fn sandbox(peers: impl WorkerSource + 'static, options: SandboxOptions) -> Sandboxed {
    Sandboxed::with_source(Box::new(peers), options).unwrap()
}

/// Peers of which the first can't be launched, which turns out when that is let go.
struct FirstFails {
    peers: Peers,
    begun: Arc<AtomicUsize>,
    held: Arc<Held>,
}

/// Threads wait until it is let go.
#[derive(Default)]
struct Held {
    gone: Mutex<bool>,
    changed: Condvar,
}

impl Held {
    fn wait(&self) {
        drop(self.changed.wait_while(self.gone.lock().unwrap(), |gone| !*gone).unwrap());
    }

    fn let_go(&self) {
        *self.gone.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl WorkerSource for FirstFails {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        if self.begun.fetch_add(1, Ordering::SeqCst) > 0 {
            return self.peers.launch();
        }
        self.held.wait();
        Err(BackendError::Spawn("not the first".into()))
    }

    fn private_bytes(&self, pid: i32) -> Option<u64> {
        self.peers.private_bytes(pid)
    }
}

fn canister(number: u8) -> Snapshot {
    Snapshot { canister: principal(number), ..snapshot() }
}

fn message(sandbox: &Sandboxed, canister: &Snapshot) -> Result<(), BackendError> {
    sandbox.execute(canister, &update(1, "m")).map(drop)
}

fn query(sandbox: &Sandboxed, canister: &Snapshot) -> Result<(), BackendError> {
    let entry = EntryPoint::InspectMessage { method: "m".into(), arg: [].into() };
    sandbox.query(canister, &invocation(2, entry), None).map(drop)
}

/// The canisters that are served, in the order of their workers' launch.
fn served(status: &SandboxStatus) -> Vec<(u8, Role)> {
    let number = |id: execution::Principal| (1..=9).find(|number| principal(*number) == id).unwrap();
    status.workers.iter().filter_map(|worker| worker.canister).map(|(id, role)| (number(id), role)).collect()
}

#[track_caller]
fn wait_until(sandbox: &Sandboxed, what: &str, reached: impl Fn(&SandboxStatus) -> bool) {
    let start = Instant::now();
    while !reached(&sandbox.status()) {
        assert!(start.elapsed() < Duration::from_secs(20), "in vain: {what}: {:?}", sandbox.status());
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn over_the_memory_limit_query_workers_go_first_and_then_the_one_idle_for_longest() {
    let peers = Peers::correct();
    let private = Arc::clone(&peers.private);
    private.lock().unwrap().extend((1..=5).map(|pid| (pid, 10 * MIB)));
    let sandbox = sandbox(peers, options(50 * MIB));
    let canisters = [1, 2, 3].map(canister);
    for canister in &canisters[..2] {
        message(&sandbox, canister).unwrap();
        query(&sandbox, canister).unwrap();
    }
    message(&sandbox, &canisters[2]).unwrap();
    // Used again: of those for messages, the second canister's is now idle for longest.
    message(&sandbox, &canisters[0]).unwrap();
    wait_until(&sandbox, "all are measured and within the limit", |status| status.memory_bytes == 50 * MIB);
    let (update, query) = (Role::Update, Role::Query);
    assert_eq!(served(&sandbox.status()), [(1, update), (1, query), (2, update), (2, query), (3, update)]);
    for (of_the_fifth, left) in [
        (11, vec![(1, update), (2, update), (2, query), (3, update)]),
        (21, vec![(1, update), (2, update), (3, update)]),
        (31, vec![(1, update), (3, update)]),
        (41, vec![(1, update)]),
    ] {
        private.lock().unwrap().insert(5, of_the_fifth * MIB);
        wait_until(&sandbox, "one more goes", |status| served(status).len() == left.len());
        assert_eq!(served(&sandbox.status()), left);
        assert!(sandbox.status().memory_bytes <= 50 * MIB);
    }
    assert_eq!(sandbox.status().evictions, Evictions { memory: 4, ..Evictions::default() });
}

#[test]
fn a_busy_worker_is_never_ended_for_memory_and_its_run_goes_on() {
    let peers = pausing();
    let (private, killed) = (Arc::clone(&peers.private), Arc::clone(&peers.killed));
    let sandbox = sandbox(peers, options(50 * MIB));
    let run = paused(&sandbox, 1);
    message(&sandbox, &canister(1)).unwrap();
    private.lock().unwrap().insert(1, 1 << 40);
    // The control: an idle worker goes for the memory of the busy one.
    wait_until(&sandbox, "the idle one goes", |status| status.evictions.memory == 1);
    assert_eq!(sandbox.pids(), [1]);
    assert_eq!(killed.load(Ordering::SeqCst), 1);
    assert!(matches!(run.resume(1_000).unwrap(), Execution::Finished(_)));
    // Now it is idle, and over the limit by itself.
    wait_until(&sandbox, "it goes", |status| status.evictions.memory == 2);
}

#[test]
fn a_message_that_meets_the_memory_limit_names_it_and_runs_when_memory_is_free() {
    let peers = pausing();
    let private = Arc::clone(&peers.private);
    let sandbox = sandbox(peers, options(50 * MIB));
    let run = paused(&sandbox, 1);
    private.lock().unwrap().insert(1, 51 * MIB);
    wait_until(&sandbox, "it is measured", |status| status.memory_bytes == 51 * MIB);
    let other = canister(1);
    let error = sandbox.execute(&other, &update(2, "m")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "out of worker_memory_bytes_max: busy sandbox workers hold 53477376 bytes of 52428800 \
         ([sandbox] worker_memory)"
    );
    assert_eq!((other.arena.bytes_used(), sandbox.status().launches), (0, 1), "nothing was begun");
    run.abort();
    sandbox.execute(&other, &update(2, "m")).unwrap();
}

#[test]
fn a_fresh_worker_counts_at_once_and_the_next_cold_start_makes_room() {
    let peers = Peers::correct();
    peers.private.lock().unwrap().extend((1..=4).map(|pid| (pid, 10 * MIB)));
    // Nobody measures at intervals here.
    let sandbox = sandbox(peers, SandboxOptions { housekeeping: NEVER, ..options(20 * MIB) });
    for number in [1, 2, 3] {
        message(&sandbox, &canister(number)).unwrap();
        assert_eq!(sandbox.status().memory_bytes, u64::from(number) * 10 * MIB);
    }
    message(&sandbox, &canister(4)).unwrap();
    assert_eq!(served(&sandbox.status()), [2, 3, 4].map(|number| (number, Role::Update)));
}

#[test]
fn a_canister_larger_than_the_limit_runs_when_no_busy_one_is_in_the_way() {
    let peers = Peers::correct();
    peers.private.lock().unwrap().extend((1..=3).map(|pid| (pid, 10 * MIB)));
    let sandbox = sandbox(peers, SandboxOptions { housekeeping: NEVER, ..options(MIB) });
    for number in [1, 2, 1] {
        message(&sandbox, &canister(number)).unwrap();
    }
    assert_eq!(sandbox.status().evictions.memory, 2);
}

#[test]
fn what_a_launch_lacks_idle_workers_give_back() {
    let evicted = |evictions: Evictions| [evictions.descriptors, evictions.memory, evictions.processes];
    for (limit, expected) in [
        (limit::OPEN_FILES, [2, 0, 0]),
        (limit::MEMORY, [0, 2, 0]),
        ("processes (RLIMIT_NPROC, pids.max)", [0, 0, 2]),
    ] {
        let peers = Peers::correct();
        *peers.short.lock().unwrap() = Some((2, limit));
        let sandbox = sandbox(peers, options(u64::MAX));
        for number in [1, 2] {
            message(&sandbox, &canister(number)).unwrap();
        }
        let error = message(&sandbox, &canister(3)).unwrap_err();
        assert_eq!(error.to_string(), format!("out of {limit}: 2 processes live"));
        tried(&sandbox, &canister(3), &update(3, "m")).unwrap();
        assert_eq!(served(&sandbox.status()), [(3, Role::Update)], "{limit}");
        assert_eq!(evicted(sandbox.status().evictions), expected, "{limit}");
    }
}

#[test]
fn with_nothing_idle_the_limit_is_named_nothing_is_lost_and_the_message_runs_later() {
    for limit in [limit::OPEN_FILES, limit::MEMORY, "processes (RLIMIT_NPROC, pids.max)"] {
        let peers = pausing();
        *peers.short.lock().unwrap() = Some((1, limit));
        let sandbox = sandbox(peers, options(u64::MAX));
        let run = paused(&sandbox, 1);
        let other = canister(1);
        let error = sandbox.execute(&other, &update(2, "m")).unwrap_err();
        assert_eq!(error.to_string(), format!("out of {limit}: 1 processes live"));
        assert!(!sandbox.relieve(&error));
        assert_eq!((other.arena.bytes_used(), sandbox.status().workers.len()), (0, 1));
        assert!(matches!(run.resume(1_000).unwrap(), Execution::Finished(_)), "others go on");
        tried(&sandbox, &other, &update(3, "m")).unwrap();
    }
}

#[test]
fn a_failure_that_is_no_shortage_evicts_nobody() {
    let peers = Peers::correct();
    *peers.short.lock().unwrap() = Some((1, "frame bytes"));
    let sandbox = sandbox(peers, options(u64::MAX));
    message(&sandbox, &canister(1)).unwrap();
    let error = message(&sandbox, &canister(2)).unwrap_err();
    assert!(!sandbox.relieve(&error));
    assert_eq!(served(&sandbox.status()), [(1, Role::Update)]);
}

#[test]
fn a_worker_that_is_idle_for_too_long_goes_though_messages_keep_coming() {
    let options = SandboxOptions { idle_max: Duration::from_millis(20), ..options(u64::MAX) };
    let sandbox = sandbox(Peers::correct(), options);
    message(&sandbox, &canister(1)).unwrap();
    let other = canister(2);
    let start = Instant::now();
    while served(&sandbox.status()).contains(&(1, Role::Update)) {
        assert!(start.elapsed() < Duration::from_secs(20), "in vain");
        message(&sandbox, &other).unwrap();
    }
    assert!(sandbox.status().evictions.idle > 0);
}

#[test]
fn a_pool_that_could_not_launch_fills_by_itself_once_it_can() {
    let peers = Peers::correct();
    let short = Arc::clone(&peers.short);
    *short.lock().unwrap() = Some((0, limit::OPEN_FILES));
    let sandbox = sandbox(peers, SandboxOptions { pool: 2, ..options(u64::MAX) });
    wait_until(&sandbox, "the launch fails", |status| status.launch_error.is_some());
    let error = sandbox.status().launch_error.unwrap();
    assert_eq!(error, "out of open files (RLIMIT_NOFILE): 0 processes live");
    *short.lock().unwrap() = None;
    wait_until(&sandbox, "the pool fills without a message", |status| status.workers.len() == 2);
    assert_eq!(sandbox.status().launch_error, None);
}

/// Gives something that should not happen the time to.
fn give_time_until(happened: impl Fn() -> bool) {
    let start = Instant::now();
    while !happened() && start.elapsed() < Duration::from_millis(20) {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_message_waits_for_the_worker_that_is_about_to_be_ready() {
    let held = Arc::new(Held::default());
    let holds = Arc::clone(&held);
    let begun = AtomicUsize::new(0);
    let peers = Peers::new(move |peer| {
        if begun.fetch_add(1, Ordering::SeqCst) == 0 {
            holds.wait();
        }
        let binding = peer.until_execute()?;
        peer.reply(binding, &ToNode::Finished(Box::new(finished())))?;
        peer.receive().map(drop)
    });
    let launched = peers.launched();
    let launched = || launched.load(Ordering::SeqCst);
    let sandbox = sandbox(peers, SandboxOptions { pool: 1, ..options(u64::MAX) });
    wait_until(&sandbox, "one is launched ahead", |_| launched() == 1);
    let canister = canister(1);
    std::thread::scope(|scope| {
        let message = scope.spawn(|| message(&sandbox, &canister));
        give_time_until(|| launched() > 1);
        assert_eq!(launched(), 1, "another was launched beside the first");
        held.let_go();
        message.join().unwrap().unwrap();
    });
    let served = sandbox.status().workers.into_iter().find(|worker| worker.canister.is_some());
    assert_eq!(served.map(|worker| worker.pid), Some(1));
}

#[test]
fn a_message_launches_a_worker_itself_if_the_one_that_it_waits_for_cannot_be_launched() {
    let (begun, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(Held::default()));
    let peers = FirstFails { peers: Peers::correct(), begun: Arc::clone(&begun), held: Arc::clone(&held) };
    let sandbox = sandbox(peers, SandboxOptions { pool: 1, ..options(u64::MAX) });
    wait_until(&sandbox, "one is launched ahead", |_| begun.load(Ordering::SeqCst) == 1);
    let canister = canister(1);
    std::thread::scope(|scope| {
        let message = scope.spawn(|| message(&sandbox, &canister));
        give_time_until(|| begun.load(Ordering::SeqCst) > 1);
        held.let_go();
        message.join().unwrap().unwrap();
    });
    wait_until(&sandbox, "the pool fills after all", |_| sandbox.ready() == 1);
    assert_eq!(begun.load(Ordering::SeqCst), 3);
}

#[test]
fn no_launch_ahead_is_begun_while_a_worker_is_handed_over() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let mut peers = Peers::correct();
    let launched = peers.launched();
    let counted = Arc::clone(&launched);
    peers.script = Arc::new(move |peer| {
        for reply in greetings() {
            let binding = peer.receive()?;
            if matches!(reply, ToNode::Loaded(_) | ToNode::Locked) {
                give_time_until(|| counted.load(Ordering::SeqCst) > 1);
                sees.lock().unwrap().push(counted.load(Ordering::SeqCst));
            }
            peer.reply(binding, &reply)?;
        }
        let binding = peer.receive()?;
        peer.reply(binding, &ToNode::Finished(Box::new(finished())))?;
        peer.receive().map(drop)
    });
    let sandbox = sandbox(peers, SandboxOptions { pool: 1, ..options(u64::MAX) });
    wait_until(&sandbox, "one is ready", |_| sandbox.ready() == 1);
    message(&sandbox, &canister(1)).unwrap();
    assert_eq!(*seen.lock().unwrap(), [1, 1], "workers launched when it was to load, and to lock itself");
    wait_until(&sandbox, "another is ready", |_| sandbox.ready() == 1);
    assert_eq!(launched.load(Ordering::SeqCst), 2);
}

#[test]
fn a_hand_over_that_hangs_keeps_others_from_no_launch_ahead_for_long() {
    let begun = AtomicUsize::new(0);
    let peers = Peers::new(move |peer| {
        let first = begun.fetch_add(1, Ordering::SeqCst) == 0;
        for reply in greetings() {
            let binding = peer.receive()?;
            if first && matches!(reply, ToNode::Loaded(_)) {
                // Until the node hangs up.
                return peer.receive().map(drop);
            }
            peer.reply(binding, &reply)?;
        }
        peer.receive().map(drop)
    });
    let sandbox = sandbox(peers, SandboxOptions { pool: 1, ..options(u64::MAX) });
    wait_until(&sandbox, "one is ready", |_| sandbox.ready() == 1);
    let canister = canister(1);
    std::thread::scope(|scope| {
        let hangs = scope.spawn(|| message(&sandbox, &canister));
        wait_until(&sandbox, "it is taken", |_| sandbox.ready() == 0);
        wait_until(&sandbox, "another is ready", |_| sandbox.ready() == 1);
        assert!(!hangs.is_finished(), "the hand-over hangs still");
        assert!(hangs.join().unwrap().is_err());
    });
}

#[test]
fn a_status_tells_the_bounds_in_force() {
    let peers = Peers::correct();
    let private: Arc<Mutex<HashMap<i32, u64>>> = Arc::clone(&peers.private);
    private.lock().unwrap().insert(1, 7 * MIB);
    let sandbox = sandbox(peers, SandboxOptions { workers_max: 100_000_000, ..options(50 * MIB) });
    message(&sandbox, &canister(1)).unwrap();
    wait_until(&sandbox, "it is measured", |status| status.memory_bytes == 7 * MIB);
    let status = sandbox.status();
    let [worker] = &status.workers[..] else { panic!("{status:?}") };
    assert_eq!((worker.memory_bytes, status.memory_bytes_max), (7 * MIB, 50 * MIB));
    let of_descriptors = usize::try_from(sandbox_os::machine::open_files_max() / 4).unwrap();
    assert_eq!(status.workers_max, of_descriptors, "no more than there are descriptors for");
    let by_machine = SandboxOptions { worker_memory_bytes_max: None, ..options(0) };
    let by_machine = Sandboxed::with_source(Box::new(Peers::correct()), by_machine).unwrap().status();
    assert_eq!(by_machine.memory_bytes_max, sandbox_os::machine::memory_bytes().unwrap() / 8 * 3);
}
