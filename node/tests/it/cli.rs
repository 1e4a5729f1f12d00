use std::process::Stdio;

use crate::program::{bulkhead, folder_with, run, run_in};

#[test]
fn help_names_every_command_and_gives_examples() {
    let ran = run(bulkhead().arg("--help"));
    assert_eq!(ran.code, Some(0));
    for word in [
        "demo",
        "drun",
        "record",
        "replay",
        "serve",
        "status",
        "compare",
        "verdict",
        "config",
        "explain",
        "version",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(ran.stdout.contains(word), "{word} is missing in: {}", ran.stdout);
    }
    for command in [
        &["demo"][..],
        &["drun"],
        &["record"],
        &["replay"],
        &["serve"],
        &["status"],
        &["compare"],
        &["verdict"],
        &["config", "check"],
        &["config", "reload"],
        &["explain"],
        &["version"],
    ] {
        let ran = run(bulkhead().args(command).arg("--help"));
        assert_eq!(ran.code, Some(0), "{command:?}");
        assert!(ran.stdout.contains("Example"), "{command:?} has no example: {}", ran.stdout);
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &[][..],
        &["dmeo"],
        &["drun"],
        &["drun", "--mode", "sandbox", "x.drun"],
        &["demo", "--rate", "0"],
        &["record"],
        &["record", "x.log", "--mode", "sandboxed"],
        &["record", "x.log", "x.drun", "--quick"],
        &["replay"],
        &["serve", "--config", "x.toml"],
        &["serve", "--config", "x.toml", "--state", "x", "--nodes", "0"],
        &["serve", "--config", "x.toml", "--state", "x", "--load", "some"],
        &["status"],
        &["replay", "x.log", "--mode", "fast"],
        &["replay", "x.log", "--against", "recording"],
        &["config"],
        &["explain", "--config", "x.toml"],
    ] {
        let ran = run(bulkhead().args(arguments));
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn version_is_data_when_asked() {
    let text = run(bulkhead().arg("version"));
    assert_eq!(text.code, Some(0));
    assert!(text.stdout.starts_with("bulkhead "), "{}", text.stdout);
    let json = run(bulkhead().args(["version", "--json"]));
    let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
    assert!(value["worker_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_closed_output_is_no_reason_to_talk() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child =
        bulkhead().args(["version", "--json"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    child.wait().unwrap();
    let stderr = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert_eq!(stderr, "");
}

#[test]
fn a_good_policy_is_said_to_be_good() {
    let folder = folder_with(&[("good.toml", b"schema = 1\n[default]\nmode = \"sandboxed\"\n")]);
    let ran = run_in(folder.path(), &["config", "check", "good.toml"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let ran = run_in(folder.path(), &["config", "check", "good.toml", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &value["ok"]), (Some(0), &true.into()));
}

#[test]
fn a_bad_policy_is_refused_where_it_is_bad() {
    let text = b"schema = 1\n\n[default]\nmode = \"sandboxd\"\n";
    let folder = folder_with(&[("bad.toml", text)]);
    let ran = run_in(folder.path(), &["config", "check", "bad.toml"]);
    assert_eq!(ran.code, Some(1));
    for part in ["bad.toml:4:8", "sandboxd", "^", "did you mean `sandboxed`?"] {
        assert!(ran.stderr.contains(part), "{part} is missing in: {}", ran.stderr);
    }
    let ran = run_in(folder.path(), &["config", "check", "bad.toml", "--json"]);
    assert_eq!(ran.code, Some(1));
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&value["ok"], &value["errors"][0]["line"]), (&false.into(), &4.into()));
}

#[test]
fn bounds_of_the_node_are_checked_too() {
    let text = b"schema = 1\n[sandbox]\nworkers_max = 4_000\nworker_memory = \"12GB\"\n";
    let folder = folder_with(&[("p.toml", text)]);
    let ran = run_in(folder.path(), &["config", "check", "p.toml"]);
    assert_eq!(ran.code, Some(1));
    for part in ["p.toml:4:17", "`worker_memory` is `12GB`", "did you mean `12GiB`?"] {
        assert!(ran.stderr.contains(part), "{part} is missing in: {}", ran.stderr);
    }
}

#[test]
fn the_four_faults_of_a_policy_are_found() {
    for (name, text) in [
        ("an unknown key", "schema = 1\n[default]\nmode = \"shadow\"\nmood = 1\n"),
        ("a subnet twice", "schema = 1\n[subnets.a]\nmode = \"shadow\"\n[subnets.a]\nmode = \"shadow\"\n"),
        ("an unknown mode", "schema = 1\n[default]\nmode = \"fast\"\n"),
        ("a mode below its floor", "schema = 1\n[default]\nmode = \"shadow\"\nfloor = \"sandboxed\"\n"),
    ] {
        let folder = folder_with(&[("p.toml", text.as_bytes())]);
        let ran = run_in(folder.path(), &["config", "check", "p.toml"]);
        assert_eq!(ran.code, Some(1), "{name}: {}", ran.stdout);
        assert!(ran.stderr.contains("p.toml:"), "{name}: {}", ran.stderr);
    }
}

#[test]
fn a_missing_policy_is_named() {
    let folder = folder_with(&[]);
    for arguments in [
        &["config", "check", "no.toml"][..],
        &["config", "show", "no.toml"],
        &["explain", "--config", "no.toml", "--subnet", "s", "--node", "n"],
    ] {
        let ran = run_in(folder.path(), arguments);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains("no.toml"), "{}", ran.stderr);
    }
}

#[test]
fn explain_says_which_layer_decided_and_where_it_stands() {
    let text = b"schema = 1\n[default]\nmode = \"in-process\"\n[subnets.io67a]\nmode = \"sandboxed\"\n";
    let folder = folder_with(&[("p.toml", text)]);
    let arguments = ["explain", "--config", "p.toml", "--subnet", "io67a", "--node", "cp7d4"];
    let ran = run_in(folder.path(), &arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.to_lowercase().contains("sandboxed"), "{}", ran.stdout);
    assert!(ran.stdout.contains("p.toml:5"), "{}", ran.stdout);
    let ran = run_in(folder.path(), &[&arguments[..], &["--json"]].concat());
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value["mode"], "sandboxed");
}

/// A policy with an exemption that has not expired in 7,000 years.
const EXEMPT: &str = "schema = 1\n[default]\nmode = \"sandboxed\"\nfloor = \"sandboxed\"\n[[exemptions]]\nid = \"ryjl3-tyaaa-aaaaa-aaaba-cai\"\nmode = \"in-process\"\nexpires = 9000-01-01\nreason = \"INC-482\"\napproved_by = [\"alice\"]\n";

#[test]
fn explain_answers_for_a_canister_and_a_time() {
    let folder = folder_with(&[("p.toml", EXEMPT.as_bytes())]);
    let explain = |more: &[&str]| {
        let arguments = ["explain", "--config", "p.toml", "--subnet", "s", "--node", "n", "--json"];
        let ran = run_in(folder.path(), &[&arguments[..], more].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()
    };
    let ledger = "ryjl3-tyaaa-aaaaa-aaaba-cai";
    assert_eq!(explain(&[])["reason"], "DEFAULT");
    assert_eq!(explain(&["--canister", ledger])["reason"], "EXEMPTED");
    assert_eq!(explain(&["--canister", ledger, "--at", "9000-01-01"])["mode"], "sandboxed");
    let arguments = ["explain", "--config", "p.toml", "--subnet", "s", "--node", "n", "--at", "tomorrow"];
    let ran = run_in(folder.path(), &arguments);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("expected a time like 2027-03-01T12:00:00Z"), "{}", ran.stderr);
}

#[test]
fn explain_looks_for_the_kill_switch() {
    let folder = folder_with(&[]);
    let kill = folder.path().join("KILL");
    let text = format!(
        "schema = 1\n[kill_switch]\nfile = \"{}\"\nmode = \"in-process\"\n[default]\nmode = \"shadow\"\n",
        kill.display()
    );
    std::fs::write(folder.path().join("p.toml"), text).unwrap();
    let arguments = ["explain", "--config", "p.toml", "--subnet", "s", "--node", "n"];
    assert!(run_in(folder.path(), &arguments).stdout.starts_with("in effect: SHADOW   reason DEFAULT"));
    std::fs::write(kill, "").unwrap();
    assert!(run_in(folder.path(), &arguments).stdout.starts_with("in effect: IN-PROCESS   reason KILLED"));
}

#[test]
fn a_live_exemption_is_told_of_and_no_fault() {
    let folder = folder_with(&[("p.toml", EXEMPT.as_bytes())]);
    let ran = run_in(folder.path(), &["config", "check", "p.toml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let notice = "notice: p.toml:5:1: canister ryjl3-tyaaa-aaaaa-aaaba-cai may run in-process, whatever the floor, until 9000-01-01T00:00:00Z: INC-482 (approved by alice)\np.toml: ok\n";
    assert_eq!(ran.stdout, notice);
    let ran = run_in(folder.path(), &["config", "check", "p.toml", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value["notices"][0]["line"], 5);
}

#[test]
fn a_policy_is_shown_with_what_is_built_in_and_is_a_policy() {
    let folder = folder_with(&[("p.toml", EXEMPT.as_bytes())]);
    let shown = run_in(folder.path(), &["config", "show", "p.toml"]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    for (key, from) in
        [("mode = \"sandboxed\"", "p.toml:3:8"), ("pool = ", "built in"), ("idle = ", "built in")]
    {
        let said =
            shown.stdout.lines().any(|line| line.starts_with(key) && line.ends_with(&format!("# {from}")));
        assert!(said, "{key} from {from} is missing in: {}", shown.stdout);
    }
    std::fs::write(folder.path().join("shown.toml"), &shown.stdout).unwrap();
    let ran = run_in(folder.path(), &["config", "check", "shown.toml"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stderr, shown.stdout);
    let ran = run_in(folder.path(), &["config", "show", "p.toml", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let first = &value["values"][0];
    assert_eq!((&first["section"], &first["key"]), (&"switch".into(), &"rollback_deadline".into()));
}

#[test]
fn the_schema_is_json() {
    let ran = run_in(folder_with(&[]).path(), &["config", "schema"]);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &value["properties"]["schema"]["const"]), (Some(0), &1.into()));
}
