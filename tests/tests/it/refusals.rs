//! Bad input to drun: what the system refuses is an answer in the output, what the script gets wrong is an error.

use crate::drun::{FIRST, MODES, Script, id};

const EMPTY: &str = "(module)";

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text is a module")
}

#[test]
fn bad_modules_are_refused_in_the_output_and_change_nothing() {
    let mut wrong_magic = wat(EMPTY);
    wrong_magic[0] ^= 1;
    let mut cut_off = std::fs::read(crate::drun::module("c/counter.wasm")).expect("a module");
    cut_off.truncate(1000);
    let cases: [(&str, Vec<u8>); 9] = [
        ("nothing.wasm", Vec::new()),
        ("text.wasm", b"this is no module".to_vec()),
        ("magic.wasm", wrong_magic),
        ("cut-off.wasm", cut_off),
        ("import.wasm", wat(r#"(module (import "ic0" "no_such_function" (func)))"#)),
        ("other-import.wasm", wat(r#"(module (import "env" "time" (func (result i64))))"#)),
        ("signature.wasm", wat(r#"(module (import "ic0" "time" (func (param i32))))"#)),
        ("export.wasm", wat(r#"(module (func (export "canister_update a") (param i32)))"#)),
        (
            "twice.wasm",
            wat(r#"(module (func (export "canister_update a")) (func (export "canister_query a")))"#),
        ),
    ];
    let mut script = Script::new();
    script.install(FIRST, "c/counter.wasm", ());
    let before = script.update(FIRST, "add", (1_u64,));
    let mut refused = Vec::new();
    for (name, bytes) in cases {
        script.file(name, bytes);
        refused.push(script.reinstall(FIRST, name, ()));
        refused.push(script.upgrade(FIRST, name, ()));
    }
    let after = script.update(FIRST, "add", (1_u64,));

    let run = script.run_in_all_modes();
    for step in refused {
        run.assert_error(step, "IC0505", "");
    }
    assert_eq!(run.value::<u64>(before), 2);
    assert_eq!(run.value::<u64>(after), 3);
}

#[test]
fn what_is_not_there_is_named_in_the_answer_and_the_script_goes_on() {
    let mut script = Script::new();
    let empty = script.query(FIRST, "get", ());
    let empty_update = script.update(FIRST, "inc", ());
    let nobody = script.query(99, "get", ());
    let nobody_update = script.update(99, "inc", ());
    let nobody_installed = script.install(99, "c/counter.wasm", ());
    script.install(FIRST, "rust/kv.wasm", (None::<String>,));
    let again = script.install(FIRST, "rust/kv.wasm", (None::<String>,));
    let no_method = script.query(FIRST, "no_such_method", ());
    let bad_candid = script.line(&format!("ingress {} put 0x4449444c00", id(FIRST)));
    let no_candid = script.line(&format!("query {} get \"hello\"", id(FIRST)));
    let len = script.query(FIRST, "len", ());

    let run = script.run_in_all_modes();
    for step in [empty, empty_update] {
        run.assert_error(step, "IC0537", "");
    }
    for step in [nobody, nobody_update, nobody_installed] {
        run.assert_error(step, "IC0301", &id(99).to_text());
    }
    run.assert_error(again, "IC0514", "");
    run.assert_error(no_method, "IC0536", "no_such_method");
    for step in [bad_candid, no_candid] {
        run.assert_error(step, "IC0503", "");
    }
    assert_eq!(run.value::<u64>(len), 0);
}

#[test]
fn a_canister_that_traps_while_it_starts_is_not_installed() {
    let mut script = Script::new();
    script.file(
        "traps.wasm",
        wat(r#"(module (memory 1) (func (export "canister_init") unreachable) (func (export "canister_query q")))"#),
    );
    script.file("start.wasm", wat("(module (func $s unreachable) (start $s))"));
    let in_init = script.install(FIRST, "traps.wasm", ());
    let in_start = script.install(FIRST, "start.wasm", ());
    let nothing = script.query(FIRST, "q", ());
    script.install(FIRST, "c/counter.wasm", ());
    let in_upgrade = script.upgrade(FIRST, "start.wasm", ());
    let kept = script.query(FIRST, "get", ());

    let run = script.run_in_all_modes();
    for step in [in_init, in_start, in_upgrade] {
        run.assert_error(step, "IC0502", "unreachable");
    }
    run.assert_error(nothing, "IC0537", "");
    assert_eq!(run.value::<u64>(kept), 1);
}

#[test]
fn a_script_that_cant_be_run_says_which_line_and_why() {
    let cases = [
        ("frobnicate", "frobnicate"),
        ("ingress", ""),
        ("query not-an-id get 0x00", "not-an-id"),
        ("install rwlgt-iiaaa-aaaaa-aaaaa-cai missing.wasm 0x00", "missing.wasm"),
        ("ingress rwlgt-iiaaa-aaaaa-aaaaa-cai inc 0x0", ""),
        ("ingress rwlgt-iiaaa-aaaaa-aaaaa-cai inc \"open", ""),
    ];
    for (line, named) in cases {
        for mode in MODES {
            let mut script = Script::new();
            script.line("# a comment, then a blank line");
            script.line("");
            script.line(line);
            let said = script.start(mode).finish_refused();
            assert!(said.contains("line 3"), "{line}: {said}");
            assert!(said.contains(named), "{line}: {said}");
        }
    }
}
