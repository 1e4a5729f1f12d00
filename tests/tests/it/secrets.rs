//! Nothing of the node is in any worker: secrets are planted in a node wherever it has room for them, and looked for in
//! all memory, windows, descriptors and `/proc` entries of its workers and launchers. The control: the node itself, which
//! runs a canister in-process, is full of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bulkhead_node::image::IMAGES;
use bulkhead_node::node::on_executor_stack;
use execution::{Backend, Compiler, Ingress, Limits, Principal, SchedulerOptions, Subnet, SubnetConfig};
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::{Launchers, SandboxOptions, Sandboxed};

use crate::conformance::management::{Install, install};
use crate::processes::descendants;

/// Present in the environment of this program where it is the node.
const ROLE: &str = "BULKHEAD_TEST_NODE_WITH_SECRETS";
const TEST: &str = "secrets::no_worker_and_no_launcher_has_anything_of_the_node_or_of_another_canister";

/// Keeps its argument in heap and stable memory.
const KEEPER: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_arg_data_size" (func $size (result i32)))
    (import "ic0" "msg_arg_data_copy" (func $arg (param i32 i32 i32)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (memory 1)
    (func (export "canister_update keep")
        (drop (call $grow (i64.const 1)))
        (call $arg (i32.const 8192) (i32.const 0) (call $size))
        (call $write (i64.const 4096) (i64.const 8192) (i64.extend_i32_u (call $size)))
        (call $reply)))"#;

/// 32 bytes that are nowhere else; letters, so that they may stand in an environment.
fn secret() -> [u8; 32] {
    let bytes: [u8; 32] = rand::random();
    bytes.map(|byte| b'a' + byte % 26)
}

/// Where secrets are planted. The last two belong to canisters, whose own workers have them.
const PLACES: [&str; 7] =
    ["heap", "environment", "arguments", "open file", "signing key", "one canister", "another canister"];

type Secrets = BTreeMap<&'static str, [u8; 32]>;

/// The node, as a process of its own.
struct Node {
    process: Child,
    /// Workers of the two canisters, in this order.
    workers: Vec<u32>,
}

impl Node {
    fn start(secrets: &Secrets) -> Self {
        let text = |place| String::from_utf8(secrets[place].to_vec()).expect("letters");
        let mut process = Command::new("/proc/self/exe")
            // A further filter matches no test; it only stands there.
            .args(["--exact", TEST, &text("arguments"), "--nocapture", "--test-threads=1"])
            .env(ROLE, text("environment"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let input = process.stdin.as_mut().expect("a pipe");
        for place in ["heap", "open file", "signing key", "one canister", "another canister"] {
            writeln!(input, "{}", text(place)).expect("the node reads");
        }
        let output = BufReader::new(process.stdout.as_mut().expect("a pipe"));
        let line = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("workers: ").map(|(_, workers)| workers.to_owned()));
        let line = line.expect("the node says which its workers are");
        let workers = line.split(' ').map(|pid| pid.parse().expect("a number")).collect();
        Self { process, workers }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// What the node does: takes its secrets, serves two canisters in workers and one of them in-process, too, and waits.
fn be_the_node() {
    let lines: Vec<Vec<u8>> =
        std::io::stdin().lines().take(5).map(|line| line.expect("a line").into()).collect();
    let [heap, in_file, key, one, another] = &lines[..] else { panic!("five secrets") };
    let mut open = tempfile::NamedTempFile::new().expect("a file");
    open.write_all(in_file).expect("room");
    let signing_key: Box<[u8]> = key.clone().into();
    let launchers = Launchers::start(IMAGES).expect("launchers start");
    let options = SandboxOptions { pool: 2, ..SandboxOptions::default() };
    let sandbox = Arc::new(Sandboxed::start(launchers, options).expect("the sandbox starts"));
    let engine = Engine::new().expect("the engine starts");
    let pids = on_executor_stack(|| {
        let in_process: Arc<dyn Backend> =
            Arc::new(InProcess::new(engine.clone(), &InProcessOptions::default()));
        for backend in [in_process, Arc::clone(&sandbox) as Arc<dyn Backend>] {
            serve(&engine, backend, [one, another]);
        }
        sandbox.pids()
    });
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    println!("workers: {}", pids.join(" "));
    // Until the test has seen enough.
    let _end = std::io::stdin().read(&mut [0]);
    drop((open, signing_key, heap.clone(), sandbox));
}

fn serve(engine: &Engine, backend: Arc<dyn Backend>, secrets: [&[u8]; 2]) {
    let limits = Arc::new(Limits::application());
    let compiler: Arc<dyn Compiler> = Arc::new(ModuleCompiler::new(engine.clone(), limits));
    let options = SchedulerOptions { threads: 1, ..SchedulerOptions::default() };
    let mut subnet = Subnet::new(SubnetConfig::application(), backend, compiler, options);
    let sender = Principal::self_authenticating(b"the user of the secrets");
    let module = wat::parse_str(KEEPER).expect("it is right");
    for (round, secret) in (1..).zip(secrets) {
        let id = subnet.create_canister(sender, None, 1 << 60).expect("there is room");
        let management = Principal::management_canister();
        let code = install(Install::Install, id, &module, &[]);
        for (part, (receiver, method, arg)) in
            (0..).zip([(management, "install_code", code), (id, "keep", secret.to_vec())])
        {
            let nonce = vec![round, part];
            let message = Ingress { sender, receiver, method: method.into(), arg: arg.into(), nonce };
            subnet.submit(message).expect("it is taken");
            let time = 1_700_000_000_000_000_000 + u64::from(2 * round + part) * 1_000_000_000;
            assert!(subnet.round(time, [0; 32]).failures.is_empty());
        }
    }
}

/// Where in a process which secrets are. All that root can see of it.
fn found(pid: u32, secrets: &Secrets) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    let mut look = |bytes: &[u8], place: &str| {
        for (name, secret) in secrets {
            if contains(bytes, secret) {
                found.entry(*name).or_insert_with(|| place.to_owned());
            }
        }
    };
    let entry = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
    for name in ["environ", "cmdline", "comm", "status", "mountinfo", "limits", "cgroup", "maps"] {
        look(&fs::read(entry(name)).unwrap_or_default(), name);
    }
    for file in fs::read_dir(entry("fd")).expect("root may look").flatten() {
        let link = fs::read_link(file.path()).unwrap_or_default();
        look(link.as_os_str().as_encoded_bytes(), "fd");
        // A regular file's content, too.
        if link.is_absolute() && link.is_file() {
            look(&fs::read(&link).unwrap_or_default(), "an open file");
        }
    }
    let memory = File::open(entry("mem")).expect("root may look");
    let maps = fs::read_to_string(entry("maps")).expect("root may look");
    assert!(maps.lines().count() > 5, "{maps}");
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').expect("a range");
        let (from, to) = range.split_once('-').expect("two ends");
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).expect("an address"));
        if !rest.starts_with('r') || line.contains("[v") {
            continue;
        }
        if rest.starts_with("r--s") && rest.contains("memfd") {
            // A window: the file behind it, of which most is a hole.
            let file = File::open(entry("map_files").join(range)).expect("root may look");
            pages_with_data(&file, |bytes| look(bytes, line));
            continue;
        }
        scan(&memory, from, to, |bytes| look(bytes, line));
    }
    found
}

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

fn scan(memory: &File, mut from: u64, to: u64, mut look: impl FnMut(&[u8])) {
    let mut chunk = vec![0; CHUNK];
    while from < to {
        let bytes = usize::try_from(to - from).unwrap_or(CHUNK).min(CHUNK);
        let Ok(read) = memory.read_at(&mut chunk[..bytes], from) else { return };
        if read == 0 {
            return;
        }
        look(&chunk[..read]);
        // What is cut in two is seen the second time.
        from += if read > 64 && from + (read as u64) < to { read as u64 - 32 } else { read as u64 };
    }
}

fn pages_with_data(file: &File, mut look: impl FnMut(&[u8])) {
    let end = file.metadata().expect("a file").len();
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        let hole = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(data)).unwrap_or(end);
        scan(file, data, hole, &mut look);
        at = hole;
    }
}

fn contains(bytes: &[u8], secret: &[u8; 32]) -> bool {
    // Most of what there is to read was never written.
    bytes.chunks(4096).any(|page| page.iter().any(|byte| *byte != 0))
        && bytes.windows(32).any(|window| window[0] == secret[0] && window == secret)
}

#[test]
fn no_worker_and_no_launcher_has_anything_of_the_node_or_of_another_canister() {
    if std::env::var_os(ROLE).is_some() {
        return be_the_node();
    }
    // As an ordinary user nobody may look into a worker, not even its node.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let secrets: Secrets = PLACES.into_iter().map(|place| (place, secret())).collect();
    let node = Node::start(&secrets);
    assert_eq!(node.workers.len(), 2, "{:?}", node.workers);
    // Which of them serves which is nobody's promise; that each has one canister's is.
    let mut of_workers = Vec::new();
    let mut others = descendants(node.process.id());
    // Two workers, two in the pool, which fills by and by, and a launcher.
    while others.len() < 5 {
        std::thread::yield_now();
        others = descendants(node.process.id());
    }
    for pid in others {
        let found = found(pid, &secrets);
        let names: Vec<&str> = found.keys().copied().collect();
        if node.workers.contains(&pid) {
            of_workers.push(names);
        } else {
            assert!(names.is_empty(), "in process {pid}: {found:?}");
        }
    }
    // Which shows, too, that the search finds what is there.
    of_workers.sort_unstable();
    assert_eq!(of_workers, [["another canister"], ["one canister"]]);
    let in_the_node = found(node.process.id(), &secrets);
    assert_eq!(in_the_node.len(), PLACES.len(), "the control: {in_the_node:?}");
}
