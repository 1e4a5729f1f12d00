//! Rollouts on a running node: driven by commands, guards, crashes, the kill switch and restarts.

use rustix::process::Signal;
use serde_json::Value;

use super::{Serving, folder, kill, run_in, save};
use crate::program::Ran;

/// What every one of these rollouts has. `guards` and `steps` follow.
const HEAD: &str = r#"[meta]
review_by = 2099-01-01
reason_required = true
[kill_switch]
file = "KILL"
mode = "in-process"
[measure]
interval = "1s"
block = "1s"
warmup_discard = "0ms"
[guard_defaults]
looks = "5s"
[rollouts.q4] # the reason is in INC-1
candidate = "sandboxed"
control = "in-process"
retry_cooldown = "0ms"
"#;

const CRASH: &str =
    "[[guards]]\nname = \"crash\"\ntype = \"fuse\"\nevent = \"sandbox-crash\"\nmax = 1\nwindow = \"1h\"\n";

/// The p50 of updates in the sandbox is at most so many times that in-process.
fn p50(limit: &str) -> String {
    format!(
        "[[guards]]\nname = \"p50\"\ntype = \"latency-ratio\"\nquantile = 0.5\nlimit = {limit}\nkinds = [\"update\"]\n"
    )
}

/// A step on the subnet `local`.
fn step(name: &str, scope: &str, more: &str) -> String {
    let scope = format!("scope = {{ subnets = [\"local\"]{scope} }}");
    format!("[[rollouts.q4.steps]]\nname = \"{name}\"\n{scope}\n{more}\n")
}

fn one_node(bake: &str) -> String {
    step("one-node", ", nodes_per_subnet = 1", &format!("bake = \"{bake}\"\nmax_bake = \"4m\""))
}

fn everywhere(bake: &str) -> String {
    step("all", "", &format!("bake = \"{bake}\"\nmax_bake = \"4m\""))
}

/// A folder with a policy of these parts; the kill switch's file is in it.
fn policy(parts: &[&str]) -> tempfile::TempDir {
    let folder = folder("");
    rewrite(folder.path(), parts);
    folder
}

fn rewrite(folder: &std::path::Path, parts: &[&str]) {
    let text = format!("{HEAD}{}", parts.concat());
    save(folder, &text.replace("\"KILL\"", &format!("\"{}/KILL\"", folder.display())));
}

impl Serving {
    fn rollout(&self) -> Value {
        self.json("/v1/rollouts/q4")
    }

    /// Follows the events until the rollout will do.
    fn until_rollout(&self, mut will_do: impl FnMut(&Value) -> bool) -> Value {
        let status = self.until(|status| {
            let found = status["rollouts"]["rollouts"].get(0);
            found.is_some_and(&mut will_do)
        });
        status["rollouts"]["rollouts"][0].clone()
    }

    fn until_phase(&self, phase: &str) -> Value {
        self.until_rollout(|rollout| {
            assert!(
                rollout["phase"] != "rolled-back" || phase.starts_with("rolled"),
                "rolled back on the way to {phase}: {rollout}"
            );
            rollout["phase"] == phase
        })
    }
}

/// A command to the node in `folder`, with a reason.
fn told(folder: &std::path::Path, arguments: &[&str]) -> Ran {
    run_in(folder, &[arguments, &["--admin", "state/admin.sock", "--reason", "a test"]].concat())
}

#[track_caller]
fn done(folder: &std::path::Path, arguments: &[&str]) -> String {
    let ran = told(folder, arguments);
    assert_eq!(ran.code, Some(0), "{arguments:?}: {}{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// The verdict that a rollout names, reached once more from what is stored with it.
#[track_caller]
fn recomputed(folder: &std::path::Path, rollout: &Value) -> Value {
    let record = rollout["record"].as_str().unwrap();
    assert!(record.ends_with("-FAIL.json"), "{record}");
    let stored = std::fs::read_dir(folder.join("state/verdicts/q4")).unwrap();
    let mut stored = stored.map(|entry| entry.unwrap().path());
    let path = stored.find(|path| path.to_string_lossy().contains(record)).unwrap();
    let ran = run_in(folder, &["verdict", "--recompute", path.to_str().unwrap(), "--json"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn modes(status: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().map(|node| (text(&node["mode"]), text(&node["resolution"]["reason"]))).collect()
}

fn both(mode: &str, reason: &str) -> Vec<(String, String)> {
    vec![(mode.to_owned(), reason.to_owned()); 2]
}

const LOAD: [&str; 6] = ["--nodes", "2", "--load", "steady", "--rate", "200"];

#[test]
fn a_rollout_goes_from_control_against_control_to_everywhere_and_into_the_policy_file() {
    let steps = [
        step("aa", "", "design = \"aa\"\nbake = \"25s\"\nmax_bake = \"4m\""),
        step(
            "shadow",
            "",
            "mode = \"shadow\"\nbake = \"3s\"\nmax_bake = \"4m\"\nrequire = { min_comparisons = 100 }",
        ),
        one_node("10s"),
        everywhere("2s"),
    ]
    .concat();
    let divergence = "[[guards]]\nname = \"same\"\ntype = \"fuse\"\nevent = \"confirmed-divergence\"\n";
    let folder = policy(&[&steps, &p50("500"), CRASH, divergence]);
    let serving = Serving::start(folder.path(), &LOAD);
    let status = serving.acknowledged(60);
    assert_eq!(modes(&status), both("in-process", "DEFAULT"));
    serving.until_phase("planned");

    assert_eq!(
        run_in(folder.path(), &["start", "q4", "--admin", "state/admin.sock"]).code,
        Some(6),
        "the policy asks for a reason"
    );
    done(folder.path(), &["start", "q4"]);
    // Equal arms look unequal at one look in twenty, and then somebody looks.
    let wait = ["status", "q4", "--admin", "state/admin.sock", "--wait", "--timeout", "5m"];
    let mut waited = run_in(folder.path(), &wait);
    while waited.code == Some(5) && waited.stdout.contains("PAUSED  step 1/4 aa") {
        done(folder.path(), &["resume", "q4"]);
        waited = run_in(folder.path(), &wait);
    }
    assert_eq!(waited.code, Some(0), "{}{}", waited.stdout, waited.stderr);
    let status = serving.until(|status| modes(status) == both("sandboxed", "STEP"));
    let explain = ["explain", "--admin", "state/admin.sock", "--subnet", "local", "--node", "n1"];
    let explained = run_in(folder.path(), &explain);
    assert_eq!(explained.code, Some(0), "{}", explained.stderr);
    let text = explained.stdout;
    assert!(text.starts_with("in effect: SANDBOXED   reason STEP   generation 1\n"), "{text}");
    assert!(text.contains("q4 step 4/4 all"), "{text}");
    assert_eq!(status["rollouts"]["rollouts"][0]["exposed_step"], 4);
    let prewarmed = status["nodes"][0]["switches"]["to_sandbox"]["prewarm"]["count"].as_u64();
    assert!(prewarmed >= Some(1), "before the step into shadow: {status}");

    done(folder.path(), &["finish", "q4"]);
    let text = std::fs::read_to_string(folder.path().join("p.toml")).unwrap();
    assert!(text.contains("[subnets.local]\nmode = \"sandboxed\"\n"), "{text}");
    assert!(!text.contains("rollouts"), "{text}");
    let status = serving.until(|status| modes(status) == both("sandboxed", "SUBNET"));
    assert_eq!(status["rollouts"]["rollouts"][0]["phase"], "finished");

    let records: Value = serving.json("/v1/rollouts/q4/verdicts");
    let name = records["verdicts"].as_array().unwrap().last().unwrap().as_str().unwrap().to_owned();
    assert!(name.ends_with("-PASS.json"), "{records}");
    let summary = serving.stopped();
    assert!(summary.contains("lost 0, applied twice 0"), "{summary}");
    let verified = run_in(folder.path(), &["audit", "verify", "--state", "state"]);
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
    let replayed = run_in(folder.path(), &["replay", "state/input.log", "--mode", "in-process"]);
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.stdout, replayed.stderr);
}

#[test]
fn a_slow_candidate_rolls_back_by_itself_and_stays_out_whatever_the_file_or_a_restart_says() {
    // No sandbox is as fast as none.
    let steps = [one_node("3m"), everywhere("3m")].concat();
    let guard = p50("1");
    let parts = [steps.as_str(), guard.as_str(), CRASH];
    let folder = policy(&parts);
    let serving = Serving::start(folder.path(), &LOAD);
    serving.acknowledged(60);
    done(folder.path(), &["start", "q4"]);
    let rollout = serving.until_rollout(|rollout| rollout["phase"] == "rolled-back");
    assert!(rollout["why"].as_str().unwrap().starts_with("p50 update FAIL: ratio "), "{rollout}");
    let waited = run_in(folder.path(), &["status", "q4", "--admin", "state/admin.sock", "--wait"]);
    assert_eq!(waited.code, Some(4), "{}{}", waited.stdout, waited.stderr);
    assert!(serving.get("/metrics").2.contains("bulkhead_latch_active{rollout=\"q4\"} 1\n"));
    let audit = serving.json("/v1/audit");
    let entries = audit["entries"].as_array().unwrap();
    let back = entries.iter().find(|entry| entry["action"] == "rolling-back").expect("it is audited");
    assert_eq!((&back["actor"], &back["from"]), (&"guards".into(), &"baking".into()));

    // The verdict follows from what is stored beside it.
    recomputed(folder.path(), &rollout);

    // A restart, and a pin of the candidate, change nothing.
    serving.killed();
    let pinned = "[nodes.n1]\nmode = \"sandboxed\"\n";
    rewrite(folder.path(), &[&parts[..], &[pinned]].concat());
    let serving = Serving::start(folder.path(), &LOAD);
    serving.acknowledged(1);
    let status = serving.until(|status| status["rollouts"]["rollouts"][0]["latched"] == true);
    assert_eq!(modes(&status), both("in-process", "LATCHED"));

    // Nor does a file without the rollout, until somebody has seen it.
    save(folder.path(), "[default]\nmode = \"sandboxed\"\n");
    let refused = run_in(folder.path(), &["config", "reload", "--admin", "state/admin.sock"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert!(refused.stderr.contains("its rollback is not acknowledged"), "{}", refused.stderr);
    done(folder.path(), &["ack", "q4"]);
    let reloaded = run_in(folder.path(), &["config", "reload", "--admin", "state/admin.sock"]);
    assert_eq!(reloaded.code, Some(0), "{}{}", reloaded.stdout, reloaded.stderr);
    serving.until(|status| modes(status) == both("sandboxed", "DEFAULT"));
    serving.stopped();
}

#[test]
fn a_kill_in_the_middle_of_a_step_loses_neither_the_step_nor_its_bake_nor_what_it_measured() {
    let folder = policy(&[&one_node("3m"), &p50("500"), CRASH]);
    let serving = Serving::start(folder.path(), &LOAD);
    serving.acknowledged(60);
    done(folder.path(), &["start", "q4"]);
    let before = serving.until_rollout(|rollout| rollout["look"].as_u64() >= Some(3));
    let resolved = |serving: &Serving| {
        ["n1", "n2"]
            .map(|node| serving.json(&format!("/v1/resolve?subnet=local&node={node}"))["mode"].clone())
    };
    let was = resolved(&serving);
    assert_eq!(was.iter().filter(|mode| **mode == "sandboxed").count(), 1, "{was:?}");
    serving.killed();

    let serving = Serving::start(folder.path(), &LOAD);
    serving.acknowledged(1);
    let again = serving.until_phase("baking");
    assert_eq!(resolved(&serving), was, "the same node");
    assert!(again["baked_ms"].as_u64() >= before["baked_ms"].as_u64(), "{again}");
    let messages = |rollout: &Value| rollout["messages"][1].as_u64().unwrap();
    let more = serving.until_rollout(|rollout| rollout["look"].as_u64() > before["look"].as_u64());
    assert!(messages(&more) > messages(&before), "{more}");
    let blocks = |rollout: &Value| rollout["verdicts"][0]["blocks"].as_u64().unwrap();
    assert!(blocks(&more) > blocks(&before), "{more} {before}");

    // Paused, it stays paused; and a command that makes no sense there is refused.
    done(folder.path(), &["pause", "q4"]);
    serving.killed();
    let serving = Serving::start(folder.path(), &LOAD);
    serving.acknowledged(1);
    serving.until_phase("paused");
    assert_eq!(resolved(&serving), was);
    let refused = told(folder.path(), &["start", "q4"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert!(refused.stderr.contains("q4 is paused"), "{}", refused.stderr);
    done(folder.path(), &["resume", "q4"]);
    done(folder.path(), &["abort", "q4"]);
    let status = serving.until(|status| status["rollouts"]["rollouts"][0]["phase"] == "rolled-back");
    assert_eq!(modes(&status), both("in-process", "LATCHED"));
    serving.stopped();
}

#[test]
fn crashes_of_more_canisters_than_accepted_roll_back_and_those_of_one_do_not() {
    let folder = policy(&[&everywhere("3m"), CRASH]);
    let serving = Serving::start(folder.path(), &LOAD);
    serving.acknowledged(60);
    done(folder.path(), &["start", "q4"]);
    serving.until_phase("baking");
    let served = |status: &Value| -> Vec<(String, i64)> {
        let workers = status["nodes"][0]["sandbox"]["workers"].as_array().unwrap();
        let named = workers.iter().filter(|worker| worker["canister"].is_string());
        named
            .map(|worker| (worker["canister"].as_str().unwrap().to_owned(), worker["pid"].as_i64().unwrap()))
            .collect()
    };
    // Kills a worker of each of these. They are named by one status: the second death rolls back, and then there
    // is no worker left to kill.
    let crash = |canisters: &[String]| {
        let mut pids = Vec::new();
        serving.until(|status| {
            let served = served(status);
            let pid = |canister| served.iter().find(|(of, _)| of == canister).map(|(_, pid)| *pid);
            pids = canisters.iter().filter_map(pid).collect();
            pids.len() == canisters.len()
        });
        for pid in pids {
            kill(pid, Signal::KILL);
        }
    };
    let deaths = |deaths: u64| {
        serving.until(|status| status["nodes"][0]["sandbox"]["deaths"].as_u64() >= Some(deaths));
    };
    let mut canisters: Vec<String> = Vec::new();
    serving.until(|status| {
        canisters = served(status).into_iter().map(|(canister, _)| canister).collect();
        canisters.sort();
        canisters.dedup();
        canisters.len() >= 3
    });
    for killed in 1..=2 {
        crash(&canisters[..1]);
        deaths(killed);
    }
    assert_eq!(serving.rollout()["phase"], "baking", "one canister, twice");
    crash(&canisters[..3]);
    let rollout = serving.until_rollout(|rollout| rollout["phase"] == "rolled-back");
    let why = rollout["why"].as_str().unwrap();
    assert!(why.starts_with("crash FAIL: ") && why.ends_with("found, 1 accepted"), "{why}");
    let rollout = serving.until_rollout(|rollout| rollout["record"].is_string());
    let json = recomputed(folder.path(), &rollout);
    assert_eq!(
        (&json["guards"][0]["guard"], &json["guards"][0]["verdict"]),
        (&"crash".into(), &"FAIL".into())
    );

    // What the file says is not taken because it is wrong is audited as well, once.
    save(folder.path(), "[default]\nmode = \"sandboxd\"\n");
    let reload = run_in(folder.path(), &["config", "reload", "--admin", "state/admin.sock"]);
    assert_eq!(reload.code, Some(1), "{}", reload.stdout);
    let refused = |audit: &Value| {
        let entries = audit["entries"].as_array().unwrap().clone();
        entries.into_iter().filter(|entry| entry["action"] == "policy-refused").collect::<Vec<_>>()
    };
    serving.until(|_| !refused(&serving.json("/v1/audit")).is_empty());
    let refused = refused(&serving.json("/v1/audit"));
    assert_eq!((refused.len(), &refused[0]["actor"]), (1, &"file".into()), "{refused:?}");
    assert!(refused[0]["details"][0].as_str().unwrap().contains("sandboxd"), "{refused:?}");
    serving.stopped();
}

#[test]
fn the_kill_switch_rolls_back_and_a_stopped_line_holds_what_waits() {
    let folder = policy(&[&everywhere("3m"), CRASH]);
    let serving = Serving::start(folder.path(), &LOAD);
    serving.acknowledged(60);
    done(folder.path(), &["line", "stop"]);
    done(folder.path(), &["start", "q4"]);
    let rollout = serving.until_phase("waiting");
    assert_eq!(rollout["next"], "the line is stopped: a test");
    done(folder.path(), &["line", "go"]);
    serving.until_phase("baking");

    done(folder.path(), &["kill", "on"]);
    let status = serving.until(|status| status["rollouts"]["rollouts"][0]["phase"] == "rolled-back");
    assert_eq!(modes(&status), both("in-process", "KILLED"));
    assert!(folder.path().join("KILL").exists());
    done(folder.path(), &["kill", "off"]);
    let status = serving.until(|status| modes(status) != both("in-process", "KILLED"));
    assert_eq!(modes(&status), both("in-process", "LATCHED"), "the switch is released, and the latch is not");
    let actions: Vec<String> = serving.json("/v1/audit")["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap().to_owned())
        .collect();
    for action in [
        "line-stopped",
        "line-released",
        "kill-on",
        "kill-engaged",
        "rolled-back",
        "kill-off",
        "kill-released",
    ] {
        assert!(actions.iter().any(|done| done == action), "{action} isn't in {actions:?}");
    }
    serving.stopped();
}

#[test]
fn commands_that_can_not_be_done_say_why_and_change_nothing() {
    let folder = policy(&[&everywhere("3m"), CRASH]);
    let serving = Serving::start(folder.path(), &["--nodes", "1"]);
    serving.until_phase("planned");
    for (arguments, code, said) in [
        (&["start", "q5"][..], 1, "there is no rollout `q5` for subnet local"),
        (&["start", "q 4"], 2, "`q 4` is no id of a rollout"),
        (&["pause", "q4", "--if-generation", "7"], 1, "generation 1 is in force, not 7"),
        (&["promote", "q4"], 1, "q4 is planned: not in this phase"),
        (&["ack", "q4"], 1, "q4 is planned: not in this phase"),
        (&["finish", "q4"], 1, "q4 is planned: not in this phase"),
        (&["promote", "q4", "--full", "--skip-bake"], 2, "cannot be used with"),
    ] {
        let ran = told(folder.path(), arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
    }
    assert_eq!(done(folder.path(), &["start", "q4", "--dry-run"]), "q4: would go planned -> waiting\n");
    assert_eq!(serving.rollout()["phase"], "planned");
    done(folder.path(), &["kill", "on", "--dry-run"]);
    assert!(!folder.path().join("KILL").exists());

    // Over HTTP for reading nobody changes anything, and bodies are bounded.
    let post = |path: &str, body: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}", body.len());
        serving.ask(&format!("{head}\r\nConnection: close\r\n\r\n{body}")).0
    };
    assert_eq!(post("/v1/rollouts/q4:start", "{}"), 405);
    assert_eq!(post("/v1/kill:on", "{}"), 404);
    assert_eq!(serving.get("/v1/rollouts/q5").0, 404);
    assert_eq!(serving.get("/v1/rollouts/q4/verdicts/..%2F..%2Finput.log").0, 400);
    assert_eq!(serving.rollout()["phase"], "planned");
    serving.stopped();
}

#[test]
fn a_state_that_is_damaged_stops_the_start_and_names_the_file() {
    let folder = policy(&[&everywhere("3m"), CRASH]);
    let serving = Serving::start(folder.path(), &["--nodes", "1"]);
    serving.until_phase("planned");
    serving.stopped();
    std::fs::write(folder.path().join("state/rollouts/q4.json"), "{").unwrap();
    let Ran { code, stdout, stderr } =
        run_in(folder.path(), &["serve", "--config", "p.toml", "--state", "state", "--nodes", "1"]);
    assert_eq!(code, Some(1));
    assert_eq!(stdout, "", "nothing listens");
    assert!(stderr.contains("rollouts/q4.json: it is no rollout state"), "{stderr}");
    assert!(stderr.contains("restore the file from a copy"), "{stderr}");
}
