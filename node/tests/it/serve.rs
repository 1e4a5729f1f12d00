mod differences;
mod rollouts;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{bulkhead, folder_with, run_in};

/// Longer than anything takes that goes well.
const PATIENCE: Duration = Duration::from_secs(300);

/// Ends with the test, however that ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node that serves, in the folder that has its policy.
struct Serving {
    process: Process,
    address: String,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
}

impl Serving {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let process = bulkhead()
            .args(["serve", "--config", "p.toml", "--state", "state", "--http", "127.0.0.1:0"])
            .args(arguments)
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map(Process);
        let mut process = process.expect("the program starts");
        let mut lines = BufReader::new(process.0.stdout.take().unwrap());
        let stderr = drained(process.0.stderr.take().unwrap());
        let (mut line, mut said) = (String::new(), String::new());
        while lines.read_line(&mut line).expect("it prints text") > 0 {
            said += &line;
            if let Some(address) = line.trim_end().strip_prefix("http://") {
                let address = address.strip_suffix("/").unwrap().to_owned();
                return Self { process, address, stdout: drained(lines), stderr };
            }
            line.clear();
        }
        panic!("no address: {said}{}", stderr.join().unwrap());
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Status, head and body of the answer to a request of these lines.
    fn ask(&self, request: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        stream.write_all(format!("{request}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost"))
    }

    fn json(&self, path: &str) -> Value {
        let (status, _, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Follows the events until one has a status that will do.
    fn until(&self, mut will_do: impl FnMut(&Value) -> bool) -> Value {
        for (_, status) in self.events("") {
            if will_do(&status) {
                return status;
            }
        }
        panic!("the events ended");
    }

    /// Ids and statuses, with another line in the request's head.
    fn events(&self, header: &str) -> impl Iterator<Item = (u64, Value)> + use<> {
        let mut stream = self.connect();
        let request = format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut id = 0;
        BufReader::new(stream).lines().map_while(Result::ok).filter_map(move |line| {
            if let Some(said) = line.strip_prefix("id: ") {
                id = said.trim().parse().unwrap();
            }
            Some((id, serde_json::from_str(line.strip_prefix("data: ")?).unwrap()))
        })
    }

    fn acknowledged(&self, count: u64) -> Value {
        self.until(|status| status["messages"]["acknowledged"].as_u64().is_some_and(|so_far| so_far >= count))
    }

    fn rounds(&self, count: u64) -> Value {
        self.until(|status| {
            status["phase"] == "serving" && status["rounds"].as_u64().is_some_and(|so_far| so_far >= count)
        })
    }

    fn signal(&self, signal: Signal) {
        kill(i64::from(self.process.0.id()), signal);
    }

    /// Exit code, standard output and standard error.
    fn ended(mut self) -> (Option<i32>, String, String) {
        let code = self.process.0.wait().unwrap().code();
        let (stdout, stderr) = (self.stdout.join().unwrap(), self.stderr.join().unwrap());
        assert!(!stderr.contains("panicked"), "a panic reached the user: {stderr}");
        (code, stdout, stderr)
    }

    fn killed(self) {
        self.signal(Signal::KILL);
        assert_eq!(self.ended().0, None);
    }

    fn stopped(self) -> String {
        self.signal(Signal::TERM);
        let (code, stdout, stderr) = self.ended();
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        stdout
    }
}

fn drained(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).map_or_else(|error| error.to_string(), |_| text)
    })
}

fn kill(pid: i64, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// A policy with these lines after its head, and a folder with it.
fn folder(lines: &str) -> tempfile::TempDir {
    let folder = folder_with(&[]);
    save(folder.path(), lines);
    folder
}

fn save(folder: &Path, lines: &str) {
    let text = format!("schema = 1\n[code_cache]\ndirectory = \"{}/code\"\n{lines}", folder.display());
    std::fs::write(folder.join("p.new"), text).unwrap();
    std::fs::rename(folder.join("p.new"), folder.join("p.toml")).unwrap();
}

fn after<'a>(text: &'a str, label: &str) -> &'a str {
    let at = text.find(label).unwrap_or_else(|| panic!("no {label:?} in {text}"));
    text[at + label.len()..].lines().next().unwrap().trim()
}

#[test]
fn nothing_acknowledged_is_lost_by_a_kill_a_switch_of_modes_or_the_death_of_a_worker() {
    let folder = folder("[nodes.n2]\nmode = \"sandboxed\"\n");
    let arguments = ["--nodes", "2", "--load", "steady", "--rate", "100"];
    let serving = Serving::start(folder.path(), &arguments);
    // 22 set the canisters up.
    let status = serving.acknowledged(150);
    assert_eq!(
        (&status["nodes"][0]["mode"], &status["nodes"][1]["mode"]),
        (&"in-process".into(), &"sandboxed".into())
    );

    // A worker dies: its message runs again, and both nodes still have one state root.
    let workers = status["nodes"][1]["sandbox"]["workers"].as_array().unwrap();
    let worker = workers.iter().find(|worker| worker["canister"].is_string()).expect("somebody is served");
    kill(worker["pid"].as_i64().unwrap(), Signal::KILL);
    let status = serving.until(|status| status["nodes"][1]["sandbox"]["deaths"] == 1);
    let acknowledged = status["messages"]["acknowledged"].as_u64().unwrap();
    serving.acknowledged(acknowledged + 50);

    // kill -9: the restart has at least what was acknowledged before.
    let before = serving.acknowledged(acknowledged + 100);
    serving.killed();
    let serving = Serving::start(folder.path(), &arguments);
    let status = serving.rounds(before["rounds"].as_u64().unwrap());
    assert!(status["messages"]["in_log"].as_u64() >= before["messages"]["in_log"].as_u64(), "{status}");
    serving.acknowledged(50);

    // The file is saved: node n1 switches between two messages.
    save(folder.path(), "[default]\nmode = \"sandboxed\"\n[nodes.n2]\nmode = \"in-process\"\n");
    let measured = |status: &Value, node: usize, mode: &str| {
        status["nodes"][node]["mode"] == mode
            && !serving.json("/v1/latencies")["nodes"][node]["kinds"]["update"][mode].is_null()
    };
    serving.until(|status| measured(status, 0, "sandboxed") && measured(status, 1, "in-process"));
    let latencies = serving.json("/v1/latencies");
    let [one, two, both] = ["/nodes/0", "/nodes/1", "/merged"].map(|of| {
        latencies.pointer(&format!("{of}/kinds/update/in-process/count")).unwrap().as_u64().unwrap()
    });
    assert_eq!(one + two, both, "merged, not averaged");

    let summary = serving.stopped();
    assert!(after(&summary, "load ").contains("rejected 0, lost 0, applied twice 0"), "{summary}");
    let root = after(&summary, "\nstate root ");
    let replayed = run_in(folder.path(), &["replay", "state/input.log", "--mode", "in-process"]);
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.stdout, replayed.stderr);
    assert!(replayed.stdout.contains(root), "{root} isn't in {}", replayed.stdout);
}

#[test]
fn two_hundred_switches_under_load_lose_nothing_and_leave_the_root_of_a_run_that_never_switched() {
    let folder = folder("[default]\nmode = \"in-process\"\n");
    let serving = Serving::start(folder.path(), &["--load", "steady", "--rate", "1000"]);
    let mut generation = serving.acknowledged(150)["nodes"][0]["generation"].as_u64().unwrap();
    for mode in ["sandboxed", "in-process"].into_iter().cycle().take(200) {
        save(folder.path(), &format!("[default]\nmode = \"{mode}\"\n"));
        generation += 1;
        while serving.json("/v1/status")["nodes"][0]["generation"] != generation {}
    }
    let updates = &serving.json("/v1/latencies")["nodes"][0]["kinds"]["update"];
    assert!(["in-process", "sandboxed"].iter().all(|mode| !updates[mode].is_null()), "{updates}");
    let summary = serving.stopped();
    assert!(after(&summary, "load ").contains("rejected 0, lost 0, applied twice 0"), "{summary}");
    let root = after(&summary, "\nstate root ");
    let replayed = run_in(folder.path(), &["replay", "state/input.log", "--mode", "in-process"]);
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.stdout, replayed.stderr);
    assert!(replayed.stdout.contains(root), "{root} isn't in {}", replayed.stdout);
}

/// The workers have an hour for each step: whoever waits for one of them waits for ever.
#[test]
fn a_rollback_waits_for_no_worker_that_has_stopped() {
    const PATIENT: &str = "[sandbox]\nstep_patience = \"1h\"\n";
    let folder = folder(&format!("{PATIENT}[default]\nmode = \"sandboxed\"\n"));
    let serving = Serving::start(folder.path(), &["--load", "steady", "--rate", "100"]);
    let status = serving.acknowledged(150);
    let workers = status["nodes"][0]["sandbox"]["workers"].as_array().unwrap();
    assert!(workers.iter().any(|worker| worker["canister"].is_string()), "{status}");
    workers.iter().for_each(|worker| kill(worker["pid"].as_i64().unwrap(), Signal::STOP));
    // A round is run every second, whatever there is to do: this one doesn't end.
    let stuck = serving.until(|status| status["data_age_seconds"].as_f64() > Some(3.0));

    save(folder.path(), &format!("{PATIENT}[switch]\nrollback_deadline = \"100ms\"\n"));
    let acknowledged = stuck["messages"]["acknowledged"].as_u64().unwrap();
    let status = serving.acknowledged(acknowledged + 100);
    assert_eq!(status["nodes"][0]["mode"], "in-process");
    let summary = serving.stopped();
    assert!(after(&summary, "load ").contains("rejected 0, lost 0, applied twice 0"), "{summary}");
}

#[test]
fn a_torn_tail_is_cut_to_the_last_whole_round_and_the_log_goes_on() {
    let folder = folder("");
    let serving = Serving::start(folder.path(), &[]);
    serving.rounds(2);
    serving.killed();
    let log = folder.path().join("state/input.log");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 1]).unwrap();
    let serving = Serving::start(folder.path(), &[]);
    serving.rounds(4);
    serving.stopped();
    let replayed = run_in(folder.path(), &["replay", "state/input.log"]);
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.stdout, replayed.stderr);
    // And a log that was ended in good order goes on as well.
    let rounds: u64 = after(&replayed.stdout, "\nreplayed ").split(' ').next().unwrap().parse().unwrap();
    let serving = Serving::start(folder.path(), &[]);
    serving.rounds(rounds + 1);
    serving.stopped();
    let replayed = run_in(folder.path(), &["replay", "state/input.log"]);
    assert!(replayed.stdout.ends_with("\nEQUAL\n"), "{}{}", replayed.stdout, replayed.stderr);
}

#[test]
fn a_damaged_log_is_refused_with_offset_and_reason_and_left_as_it_is() {
    let folder = folder("");
    let serving = Serving::start(folder.path(), &[]);
    serving.rounds(1);
    serving.stopped();
    let log = folder.path().join("state/input.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[400] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let ran = run_in(folder.path(), &["serve", "--config", "p.toml", "--state", "state"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert!(ran.stderr.contains("state/input.log: offset 12: damaged record: "), "{}", ran.stderr);
    assert_eq!(std::fs::read(&log).unwrap(), bytes);
}

#[test]
fn a_state_directory_is_used_by_one_process() {
    let folder = folder("");
    let serving = Serving::start(folder.path(), &[]);
    let ran = run_in(folder.path(), &["serve", "--config", "p.toml", "--state", "state"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert!(ran.stderr.contains("another process uses this state directory"), "{}", ran.stderr);
    serving.rounds(1);
    serving.stopped();
}

#[test]
fn a_full_log_takes_no_message_and_no_round_and_says_so() {
    let folder = folder("");
    let serving = Serving::start(folder.path(), &["--log-max", "1"]);
    let status = serving.until(|status| status["phase"] == "full");
    assert_eq!((&status["rounds"], &status["ready"]), (&0.into(), &false.into()));
    let (code, head, body) = serving.get("/readyz");
    assert_eq!(code, 503, "{body}");
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    assert!(body.contains("as large as --log-max allows"), "{body}");
    serving.stopped();
}

#[test]
fn requests_that_are_not_for_a_loopback_reader_are_refused() {
    let folder = folder("");
    let serving = Serving::start(folder.path(), &[]);
    for (request, expected) in [
        ("GET /v1/status HTTP/1.1\r\nHost: rebound.example", 403),
        ("GET /v1/status HTTP/1.1\r\nHost: rebound.example:80", 403),
        ("GET /v1/status HTTP/1.1", 403),
        ("GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1:1", 200),
        ("POST /v1/status HTTP/1.1\r\nHost: localhost", 405),
        ("POST /v1/config:reload HTTP/1.1\r\nHost: localhost", 404),
        ("GET /nothing HTTP/1.1\r\nHost: localhost", 404),
        ("GET /v1/resolve?subnet=local HTTP/1.1\r\nHost: localhost", 400),
        ("GET /v1/hist?mode=fast&kind=update&format=hgrm HTTP/1.1\r\nHost: localhost", 400),
        ("GET /v1/hist?mode=sandboxed&kind=update&format=hgrm HTTP/1.1\r\nHost: localhost", 404),
        ("GET /v1/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: x", 400),
    ] {
        let (code, head, body) = serving.ask(request);
        assert_eq!(code, expected, "{request}: {body}");
        assert!(!head.contains("access-control"), "{head}");
        if code != 200 {
            assert!(head.contains("content-type: application/problem+json"), "{request}: {head}");
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["status"], code, "{body}");
        }
    }
    let mut stream = serving.connect();
    let long = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nLong: {}\r\n\r\n", "x".repeat(64 << 10));
    let mut answer = Vec::new();
    // The connection may be closed before all of it was written.
    let _ = stream.write_all(long.as_bytes()).and_then(|()| stream.read_to_end(&mut answer).map(drop));
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "a head of 64 KiB was taken");
    serving.stopped();
    for address in ["0.0.0.0:0", "192.0.2.1:80"] {
        let arguments = ["serve", "--config", "p.toml", "--state", "state", "--http", address];
        let ran = run_in(folder.path(), &arguments);
        assert_eq!(ran.code, Some(1), "{}", ran.stdout);
        assert!(ran.stderr.contains("listens on loopback addresses alone"), "{}", ran.stderr);
    }
}

#[test]
fn events_are_taken_up_again_after_the_last_one_seen() {
    let folder = folder("");
    let serving = Serving::start(folder.path(), &[]);
    let seen: Vec<u64> = serving.events("").map(|(id, _)| id).take(3).collect();
    assert_eq!(seen, [seen[0], seen[0] + 1, seen[0] + 2]);
    let again = serving.events(&format!("Last-Event-ID: {}\r\n", seen[0])).map(|(id, _)| id);
    assert_eq!(again.take(2).collect::<Vec<_>>(), seen[1..]);
    serving.stopped();
}

#[test]
fn the_admin_socket_is_for_its_user_and_the_command_line_speaks_to_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder("");
    let absent = run_in(folder.path(), &["status", "--admin", "state/admin.sock"]);
    assert_eq!(absent.code, Some(1), "{}", absent.stdout);
    assert!(absent.stderr.contains("no node answers on this admin socket"), "{}", absent.stderr);
    let serving = Serving::start(folder.path(), &["--nodes", "2"]);
    serving.rounds(1);
    let socket = folder.path().join("state/admin.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let status = run_in(folder.path(), &["status", "--admin", "state/admin.sock"]);
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    assert!(status.stdout.starts_with("serving\n"), "{}", status.stdout);
    let status = run_in(folder.path(), &["status", "--admin", "state/admin.sock", "--json"]);
    let value: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(value["nodes"][1]["mode"], "in-process");

    save(folder.path(), "[nodes.n2]\nmode = \"sandboxed\"\n");
    let reloaded = run_in(folder.path(), &["config", "reload", "--admin", "state/admin.sock"]);
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.stderr);
    assert!(reloaded.stdout.contains("n2: generation 2, "), "{}", reloaded.stdout);
    // The list of changes follows, unless the watcher has seen the file first.
    assert!(reloaded.stdout.contains("mode sandboxed\n"), "{}", reloaded.stdout);
    save(folder.path(), "[nodes.n2]\nmode = \"sandboxd\"\n");
    let refused = run_in(folder.path(), &["config", "reload", "--admin", "state/admin.sock"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    for part in ["did you mean `sandboxed`?", "The last good policy stays in force"] {
        assert!(refused.stderr.contains(part), "{part} isn't in {}", refused.stderr);
    }
    let resolved = serving.json("/v1/resolve?subnet=local&node=n2");
    assert_eq!((&resolved["mode"], &resolved["reason"]), (&"sandboxed".into(), &"PINNED".into()));
    serving.stopped();
    assert!(!socket.exists());
}

#[test]
fn metrics_are_openmetrics_with_help_and_type_and_no_open_set_of_labels() {
    let folder = folder("[nodes.n2]\nmode = \"sandboxed\"\n");
    let serving = Serving::start(folder.path(), &["--nodes", "2", "--load", "steady"]);
    serving.acknowledged(100);
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    let (code, head, text) = serving.ask(&format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{accept}"));
    assert_eq!(code, 200, "{text}");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    let families = openmetrics(&text);
    // Who asks for nothing gets what Prometheus' own tools read.
    let (code, head, text) = serving.get("/metrics");
    assert!(code == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(text.contains("\n# TYPE bulkhead_messages_total counter\n"), "{text}");
    assert!(text.contains("\n# TYPE bulkhead_sandbox_processes gauge\n"), "{text}");
    assert!(!text.contains("# EOF"), "{text}");
    for (name, kind) in [
        ("bulkhead_build_info", "gauge"),
        ("bulkhead_execution_duration_seconds", "histogram"),
        ("bulkhead_execution_phase_seconds", "histogram"),
        ("bulkhead_sandbox_round_trip_seconds", "histogram"),
        ("bulkhead_queue_wait_seconds", "histogram"),
        ("bulkhead_inflight_executions", "gauge"),
        ("bulkhead_messages", "counter"),
        ("bulkhead_sandbox_processes", "gauge"),
        ("bulkhead_sandbox_resident_bytes", "gauge"),
        ("bulkhead_config_observed_generation", "gauge"),
        ("bulkhead_shadow_comparisons", "counter"),
        ("bulkhead_divergences", "counter"),
    ] {
        assert!(families.contains(&(name.to_owned(), kind.to_owned())), "{name} isn't in {text}");
    }
    let (_, _, hgrm) = serving.get("/v1/hist?mode=in-process&kind=update&format=hgrm");
    assert!(hgrm.trim_start().starts_with("Value     Percentile TotalCount 1/(1-Percentile)"), "{hgrm}");
    let (_, _, hlog) = serving.get("/v1/hist?mode=in-process&kind=update&format=hlog");
    assert!(hlog.contains("Tag=in-process.update,"), "{hlog}");
    let (code, head, _) = serving.get("/v1/hist?mode=in-process&kind=update&format=v2");
    assert!(code == 200 && head.contains("content-type: application/octet-stream"), "{head}");
    let latencies = serving.json("/v1/latencies");
    let [one, two] = [0, 1].map(|node| &latencies["nodes"][node]);
    assert!(one["kinds"]["update"]["in-process"]["count"].as_u64() > Some(0), "{latencies}");
    assert!(one["kinds"]["update"]["sandboxed"].is_null(), "no data is null: {latencies}");
    assert!(one["phases"]["warm"]["worker"].is_null(), "no data is null: {latencies}");
    for start in ["warm", "cold"] {
        let counts =
            ["prepare", "worker", "pages"].map(|phase| two["phases"][start][phase]["count"].as_u64());
        assert!(counts[0] > Some(0) && counts.iter().all(|count| *count == counts[0]), "{latencies}");
        assert_eq!(two["phases"][start], latencies["merged"]["phases"][start]);
    }
    serving.stopped();
}

#[test]
fn phases_of_both_modes_and_switches_are_shown_and_no_data_is_null() {
    let folder = folder("[nodes.n2]\nmode = \"sandboxed\"\n");
    let serving = Serving::start(folder.path(), &["--nodes", "2", "--load", "steady"]);
    serving.acknowledged(300);
    let latencies = serving.json("/v1/latencies");
    let [one, two] = [0, 1].map(|node| &latencies["nodes"][node]["phases"]);
    let merged = &latencies["merged"]["phases"];
    for phase in ["queue", "backend", "check", "commit"] {
        for (phases, mode, other) in [(one, "in-process", "sandboxed"), (two, "sandboxed", "in-process")] {
            let measured = &phases["modes"][mode][phase];
            assert!(measured["count"].as_u64() > Some(0), "{mode} {phase}: {latencies}");
            assert!(phases["modes"][other][phase].is_null(), "no data is null: {latencies}");
            assert_eq!(merged["modes"][mode][phase], *measured, "of the one node that measured it");
        }
    }
    assert!(one["round_trip"].is_null() && two["round_trip"]["count"].as_u64() > Some(0), "{latencies}");
    let waits = |phases: &Value| phases["queue_wait"]["update"]["count"].as_u64().unwrap();
    assert_eq!(waits(merged), waits(one) + waits(two));
    assert_eq!(merged["sampled_one_in"], 16);

    let status = serving.until(|_| true);
    let switches = |status: &Value, direction: &str, phase: &str| {
        status["nodes"][1]["switches"][direction][phase]["count"].as_u64()
    };
    assert_eq!(switches(&status, "from_sandbox", "cutover"), None, "no data is null: {status}");
    save(folder.path(), "[nodes.n2]\nmode = \"in-process\"\n");
    let all = ["cutover", "drain", "first_execution"];
    let status = serving.until(|status| {
        all.iter().all(|phase| switches(status, "from_sandbox", phase) == Some(1))
            && status["nodes"][1]["under_way"]["old"]["sandboxed"] == 0
    });
    assert!(all.iter().all(|phase| switches(&status, "to_sandbox", phase).is_none()), "{status}");
    assert_eq!(switches(&status, "from_sandbox", "prewarm"), None, "nothing is launched for that: {status}");
    let (_, _, text) = serving.get("/metrics");
    assert!(text.contains("\n# TYPE bulkhead_switch_duration_seconds histogram\n"), "{text}");
    let in_json = run_in(folder.path(), &["status", "--json", "--admin", "state/admin.sock"]);
    let in_json: Value = serde_json::from_str(&in_json.stdout).unwrap();
    assert!(in_json["phases"]["merged"]["modes"]["sandboxed"]["commit"]["p50"].as_u64() > Some(0));
    assert!(in_json["phases"]["nodes"]["n1"]["modes"]["sandboxed"]["commit"].is_null(), "{in_json}");
    serving.stopped();
}

/// Names and types of the families of a scrape; fails where a line isn't what the format asks for.
fn openmetrics(text: &str) -> Vec<(String, String)> {
    const LABELS: [&str; 12] = [
        "node",
        "mode",
        "kind",
        "outcome",
        "reason",
        "result",
        "version",
        "start",
        "phase",
        "class",
        "generation",
        "direction",
    ];
    let mut families: Vec<(String, String)> = Vec::new();
    let body = text.strip_suffix("# EOF\n").expect("a scrape ends with EOF");
    let mut help = "";
    for line in body.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ').expect("help has a text").0;
        } else if let Some(said) = line.strip_prefix("# TYPE ") {
            let (name, kind) = said.split_once(' ').unwrap();
            assert_eq!(name, help, "help comes before the type");
            assert!(families.iter().all(|(known, _)| known != name), "{name} twice");
            families.push((name.to_owned(), kind.to_owned()));
        } else {
            let (name, kind) = families.last().expect("a type comes before samples");
            let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
            let (sample, labels) = match sample.split_once('{') {
                Some((sample, labels)) => (sample, labels.strip_suffix('}').expect("labels end")),
                None => (sample, ""),
            };
            let suffixes: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "histogram" => &["_sum", "_count", "_bucket"],
                "gauge" => &[""],
                other => panic!("{other}"),
            };
            let suffix = sample.strip_prefix(name.as_str()).expect("a sample is of its family");
            assert!(suffixes.contains(&suffix), "{line}");
            value.parse::<f64>().unwrap_or_else(|_| panic!("no number: {line}"));
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (key, value) = label.split_once('=').unwrap();
                assert!(LABELS.contains(&key) || (key == "le" && suffix == "_bucket"), "{line}");
                assert!(value.starts_with('"') && value.ends_with('"'), "{line}");
            }
        }
    }
    families
}

#[test]
fn no_difference_is_told_with_how_much_was_compared() {
    let folder = folder("[default]\nmode = \"in-process\"\n");
    let serving = Serving::start(folder.path(), &["--load", "steady"]);
    serving.acknowledged(50);
    let list = ["divergences", "list", "--admin", "state/admin.sock"];
    let listed = run_in(folder.path(), &list);
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    assert!(listed.stdout.starts_with("nothing was compared"), "{}", listed.stdout);

    save(folder.path(), "[default]\nmode = \"shadow\"\n");
    serving.until(|status| status["nodes"][0]["shadow"]["equal"].as_u64() >= Some(20));
    let found = serving.json("/v1/divergences");
    assert!(
        found["compared"].as_u64() >= Some(20) && found["divergences"].as_array().unwrap().is_empty(),
        "{found}"
    );
    assert!(["confirmed", "flaky-candidate"].iter().all(|class| found["classes"][class] == 0), "{found}");
    let listed = run_in(folder.path(), &list);
    assert!(listed.stdout.starts_with("no difference in "), "{}", listed.stdout);
    assert!(listed.stdout.contains("at 95 % confidence"), "{}", listed.stdout);
    let shown = run_in(folder.path(), &["divergences", "show", "1", "--admin", "state/admin.sock"]);
    assert_eq!(shown.code, Some(1), "{}", shown.stdout);
    assert!(shown.stderr.contains("there is no difference 1; 0 are listed"), "{}", shown.stderr);
    serving.stopped();
}

#[test]
fn the_page_is_served_whole_and_may_load_nothing_else() {
    let folder = folder_with(&[("p.toml", b"schema = 1\n[default]\nmode = \"in-process\"\n")]);
    let serving = Serving::start(folder.path(), &[]);
    let (status, head, page) = serving.get("/");
    assert_eq!(status, 200, "{page}");
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    assert!(
        head.contains("content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'"),
        "{head}"
    );
    let quoted = |attribute: &str| -> Vec<String> {
        let before = format!("{attribute}=\"");
        page.split(&before).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    };
    let files: Vec<String> = [quoted("src"), quoted("href")].concat();
    for file in ["dashboard.js", "dashboard.css", "uplot.js", "uplot.css"] {
        assert!(files.iter().any(|named| named == file), "{file} is not in the page: {files:?}");
    }
    for file in files.iter().filter(|file| !file.starts_with('#') && !file.starts_with("data:")) {
        assert!(!file.contains("//"), "{file} is on another host");
        let (status, head, _) = serving.get(&format!("/{}", file.trim_start_matches('/')));
        assert_eq!(status, 200, "{file}");
        assert!(head.contains("content-type: "), "{file}: {head}");
    }
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().0, Some(0));
}
