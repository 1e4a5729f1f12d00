use std::path::Path;

use crate::program::{Ran, folder_with, run_in};

const ID: &str = "rwlgt-iiaaa-aaaaa-aaaaa-cai";
const FIRST: &str = "ingress Completed: Reply: 0x4449444c016c01b3c4b1f204680100010a00000000000000000101";
const SECOND: &str = "ingress Completed: Reply: 0x4449444c016c01b3c4b1f204680100010a00000000000000010101";
const INSTALLED: &str = "ingress Completed: Reply: 0x4449444c0000";

/// Keeps a byte at 0, prints, traps, rejects, calls itself, sets a timer.
const COUNTER: &str = r#"(module
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reject" (func $reject (param i32 i32)))
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "debug_print" (func $print (param i32 i32)))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (import "ic0" "time" (func $time (result i64)))
  (import "ic0" "canister_self_size" (func $self_size (result i32)))
  (import "ic0" "canister_self_copy" (func $self_copy (param i32 i32 i32)))
  (import "ic0" "global_timer_set" (func $timer (param i64) (result i64)))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_perform" (func $call (result i32)))
  (memory 1)
  (table funcref (elem $answer))
  (data (i32.const 16) "hello")
  (data (i32.const 32) "two\nlines")
  (data (i32.const 48) "no")
  (data (i32.const 64) "inc")
  (func $inc (i32.store8 (i32.const 0) (i32.add (i32.load8_u (i32.const 0)) (i32.const 1))))
  (func $value (call $append (i32.const 0) (i32.const 1)) (call $reply))
  (func $answer (param i32) (call $value))
  (func (export "canister_init") (call $print (i32.const 16) (i32.const 5)))
  (func (export "canister_global_timer") (call $inc) (call $print (i32.const 16) (i32.const 5)))
  (func (export "canister_update inc") (call $inc) (call $value))
  (func (export "canister_query get") (call $value))
  (func (export "canister_query get_loudly") (call $print (i32.const 16) (i32.const 5)) (call $value))
  (func (export "canister_update echo")
    (call $arg_copy (i32.const 1024) (i32.const 0) (call $arg_size))
    (call $append (i32.const 1024) (call $arg_size)) (call $reply))
  (func (export "canister_update lines") (call $print (i32.const 32) (i32.const 9)) (call $value))
  (func (export "canister_update inc_and_trap") (call $inc) (call $print (i32.const 16) (i32.const 5))
    (call $trap (i32.const 16) (i32.const 5)))
  (func (export "canister_update no") (call $reject (i32.const 48) (i32.const 2)))
  (func (export "canister_update silent"))
  (func (export "canister_update unreachable") unreachable)
  (func (export "canister_query time") (i64.store (i32.const 128) (call $time))
    (call $append (i32.const 128) (i32.const 8)) (call $reply))
  (func (export "canister_update set_timer")
    (drop (call $timer (i64.add (call $time) (i64.const 1000000000)))) (call $value))
  (func (export "canister_update inc_by_call")
    (call $self_copy (i32.const 256) (i32.const 0) (call $self_size))
    (call $call_new (i32.const 256) (call $self_size) (i32.const 64) (i32.const 3)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (drop (call $call))))"#;

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the module's text is valid")
}

fn drun(folder: &Path, mode: &str) -> Ran {
    run_in(folder, &["drun", "--mode", mode, "test.drun"])
}

/// Runs a script with the counter beside it in all modes; all must print the same.
#[track_caller]
fn prints_in_all_modes(script: &str, expected: &[&str]) {
    let folder = folder_with(&[("test.drun", script.as_bytes()), ("counter.wasm", &wasm(COUNTER))]);
    for mode in ["in-process", "sandboxed", "shadow"] {
        let ran = drun(folder.path(), mode);
        assert_eq!(ran.code, Some(0), "{mode}: {}", ran.stderr);
        let lines: Vec<_> = without_advice(&ran.stdout).collect();
        assert_eq!(lines, expected, "{mode}; stderr: {}", ran.stderr);
    }
}

/// Lines of advice and documentation are our own choice.
fn without_advice(stdout: &str) -> impl Iterator<Item = &str> {
    stdout.lines().filter(|line| !line.contains("https://"))
}

#[test]
fn messages_change_the_state_and_queries_do_not() {
    prints_in_all_modes(
        &format!(
            "# a comment\ninstall {ID} counter.wasm \"\"\ningress {ID} inc \"\"\ningress {ID} inc 0x\n\
             query {ID} get \"\"\nquery {ID} get_loudly \"\"\n"
        ),
        &[
            FIRST,
            "debug.print: hello",
            INSTALLED,
            "ingress Completed: Reply: 0x01",
            "ingress Completed: Reply: 0x02",
            "Ok: Reply: 0x02",
            "debug.print: hello",
            "Ok: Reply: 0x02",
        ],
    );
}

#[test]
fn arguments_arrive_as_written() {
    prints_in_all_modes(
        &format!("install {ID} counter.wasm \"\"\ningress {ID} echo \"a\\x0a\\b00010001\\\"\\\\ \"\n"),
        &[FIRST, "debug.print: hello", INSTALLED, "ingress Completed: Reply: 0x610a11225c20"],
    );
}

#[test]
fn traps_and_rejects_are_answers_and_undo() {
    prints_in_all_modes(
        &format!(
            "install {ID} counter.wasm \"\"\ningress {ID} inc_and_trap \"\"\ningress {ID} no \"\"\n\
             ingress {ID} unreachable \"\"\nquery {ID} get \"\"\n"
        ),
        &[
            FIRST,
            "debug.print: hello",
            INSTALLED,
            "debug.print: hello",
            &format!(
                "ingress Err: IC0503: Error from Canister {ID}: Canister called `ic0.trap` with message: 'hello'."
            ),
            "ingress Err: IC0406: no",
            &format!("ingress Err: IC0502: Error from Canister {ID}: Canister trapped: unreachable."),
            "Ok: Reply: 0x00",
        ],
    );
}

#[test]
fn what_the_system_refuses_is_an_answer_and_the_script_goes_on() {
    let script = format!(
        "install {ID} text.wasm \"\"\ningress {ID} inc \"\"\ninstall {ID} import.wasm \"\"\n\
         install {ID} counter.wasm \"\"\ningress {ID} nosuch \"\"\nquery {ID} nosuch \"\"\n\
         ingress rrkah-fqaaa-aaaaa-aaaaq-cai inc \"\"\ningress aaaaa-aa stop_canister \"rubbish\"\n\
         query {ID} get \"\"\n"
    );
    let unknown_import = wasm(r#"(module (import "ic0" "msg_repyl" (func)))"#);
    let folder = folder_with(&[
        ("test.drun", script.as_bytes()),
        ("text.wasm", b"not a module"),
        ("import.wasm", &unknown_import),
        ("counter.wasm", &wasm(COUNTER)),
    ]);
    let ran = drun(folder.path(), "in-process");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let codes: Vec<_> = without_advice(&ran.stdout)
        .filter(|line| line.contains("IC0") || line.starts_with("Ok"))
        .map(|line| line.split_inclusive(": ").take(2).collect::<String>())
        .collect();
    assert_eq!(
        codes,
        [
            "ingress Err: IC0505: ",
            "ingress Err: IC0537: ",
            "ingress Err: IC0505: ",
            "ingress Err: IC0536: ",
            "Err: IC0536: ",
            "ingress Err: IC0301: ",
            "ingress Err: IC0408: ",
            "Ok: Reply: ",
        ]
    );
}

#[test]
fn prints_of_several_lines_have_one_prefix() {
    prints_in_all_modes(
        &format!("install {ID} counter.wasm \"\"\ningress {ID} lines \"\"\n"),
        &[
            FIRST,
            "debug.print: hello",
            INSTALLED,
            "debug.print: two",
            "lines",
            "ingress Completed: Reply: 0x00",
        ],
    );
}

#[test]
fn a_call_is_answered_in_its_rounds() {
    prints_in_all_modes(
        &format!(
            "install {ID} counter.wasm \"\"\ningress {ID} inc_by_call \"\"\ningress {ID} silent \"\"\nquery {ID} get \"\"\n"
        ),
        &[
            FIRST,
            "debug.print: hello",
            INSTALLED,
            "ingress Completed: Reply: 0x01",
            &format!("ingress Err: IC0506: Canister {ID} did not reply to the call"),
            "Ok: Reply: 0x01",
        ],
    );
}

#[test]
fn a_timer_fires_while_time_goes_on() {
    prints_in_all_modes(
        &format!(
            "install {ID} counter.wasm \"\"\ningress {ID} set_timer \"\"\ningress {ID} echo \"\"\ningress {ID} echo \"\"\nquery {ID} get \"\"\n"
        ),
        &[
            FIRST,
            "debug.print: hello",
            INSTALLED,
            "ingress Completed: Reply: 0x00",
            "debug.print: hello",
            "ingress Completed: Reply: 0x",
            "ingress Completed: Reply: 0x",
            "Ok: Reply: 0x01",
        ],
    );
}

#[test]
fn the_first_round_has_druns_time() {
    prints_in_all_modes(
        &format!("install {ID} counter.wasm \"\"\nquery {ID} time \"\"\n"),
        &[FIRST, "debug.print: hello", INSTALLED, "Ok: Reply: 0x009c8bda4d907c16"],
    );
}

#[test]
fn created_canisters_get_the_following_ids() {
    prints_in_all_modes(
        "create\ninstall rrkah-fqaaa-aaaaa-aaaaq-cai counter.wasm \"\"\n",
        &[FIRST, SECOND, "debug.print: hello", INSTALLED],
    );
}

#[test]
fn an_application_subnet_has_ids_of_its_own() {
    let folder = folder_with(&[("test.drun", b"# APPLICATION-SUBNET\n")]);
    let ran = drun(folder.path(), "in-process");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(
        ran.stdout.trim_end(),
        "ingress Completed: Reply: 0x4449444c016c01b3c4b1f204680100010a0000000001e01d150101"
    );
}

#[test]
fn reinstall_forgets_and_upgrade_runs_the_new_module() {
    let script = format!(
        "install {ID} counter.wasm \"\"\ningress {ID} inc \"\"\nupgrade {ID} counter.wasm \"\"\n\
         query {ID} get \"\"\nreinstall {ID} counter.wasm \"\"\ninstall {ID} counter.wasm \"\"\n"
    );
    prints_in_all_modes(
        &script,
        &[
            FIRST,
            "debug.print: hello",
            INSTALLED,
            "ingress Completed: Reply: 0x01",
            INSTALLED,
            "Ok: Reply: 0x00",
            "debug.print: hello",
            INSTALLED,
            &format!(
                "ingress Err: IC0514: Canister {ID} cannot be installed because the canister is not empty. Try installing with mode='reinstall' instead."
            ),
        ],
    );
}

#[test]
fn a_syntax_error_is_named_with_its_line_and_nothing_runs() {
    let script = format!("install {ID} counter.wasm \"\"\n\ningres {ID} inc \"\"\n");
    let folder = folder_with(&[("test.drun", script.as_bytes()), ("counter.wasm", &wasm(COUNTER))]);
    let ran = drun(folder.path(), "in-process");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert_eq!(ran.stderr, "error: test.drun: line 3: unknown command `ingres`; did you mean `ingress`?\n");
}

#[test]
fn a_missing_file_is_named_with_its_line() {
    let script = format!("create\ninstall {ID} nosuch.wasm \"\"\n");
    let folder = folder_with(&[("test.drun", script.as_bytes())]);
    let ran = drun(folder.path(), "in-process");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(
        ran.stderr.starts_with("error: test.drun: line 2: could not read module nosuch.wasm: "),
        "{}",
        ran.stderr
    );
    let ran = run_in(folder.path(), &["drun", "nosuch.drun"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("error: could not read script nosuch.drun: "), "{}", ran.stderr);
}

#[test]
fn modules_are_found_beside_the_script() {
    let script = format!("install {ID} counter.wasm \"\"\n");
    let folder = folder_with(&[("test.drun", script.as_bytes()), ("counter.wasm", &wasm(COUNTER))]);
    let path = folder.path().join("test.drun");
    let ran = run_in(Path::new("/"), &["drun", path.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn the_report_has_a_line_for_each_message_and_equal_figures_in_all_modes() {
    let script = format!(
        "install {ID} counter.wasm \"\"\ningress {ID} inc \"\"\ningress {ID} inc_and_trap \"\"\ningress {ID} no \"\"\nquery {ID} get \"\"\n"
    );
    let folder = folder_with(&[("test.drun", script.as_bytes()), ("counter.wasm", &wasm(COUNTER))]);
    let mut first: Option<Vec<serde_json::Value>> = None;
    for mode in ["in-process", "sandboxed", "shadow"] {
        let arguments = ["drun", "--mode", mode, "--report", "report.jsonl", "test.drun"];
        let ran = run_in(folder.path(), &arguments);
        assert_eq!(ran.code, Some(0), "{mode}: {}", ran.stderr);
        let text = std::fs::read_to_string(folder.path().join("report.jsonl")).unwrap();
        let mut entries: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for entry in &mut entries {
            assert_eq!(entry["mode"], mode);
            assert!(entry["duration_ns"].as_u64().unwrap() > 0);
            entry["mode"].take();
            entry["duration_ns"].take();
        }
        let kinds: Vec<_> = entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["init", "update", "update", "update", "query"]);
        let outcomes: Vec<_> = entries.iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["reply", "reply", "trap", "reject", "reply"]);
        assert_eq!(entries[2]["code"], "IC0503");
        assert_eq!(entries[1]["dirty_heap_pages"], 1);
        assert_ne!(entries[0]["state_root"], entries[1]["state_root"]);
        match &first {
            Some(first) => assert_eq!(&entries, first, "{mode}"),
            None => first = Some(entries),
        }
    }
}
