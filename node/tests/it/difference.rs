//! Differences are found and named: in edited logs, and with backends that are wrong on purpose.

use std::io::{Read, Seek};
use std::sync::Arc;

use bulkhead_node::drun::InstallMode;
use bulkhead_node::log::{Admission, Entry, Reader};
use bulkhead_node::node::on_executor_stack;
use bulkhead_node::observation::{After, Answer, Excerpt, Observation, Refusal, Run, Space};
use bulkhead_node::replay::{Difference, Play, Verdict};
use bulkhead_node::{Node, NodeOptions, Preset, management};
use execution::memory::{PAGE_BYTES, PageVersion};
use execution::outcome::LogLine;
use execution::{
    Backend, BackendError, EntryPoint, Execution, Invocation, Outcome, Principal, Snapshot, Violation,
};
use in_process::{InProcess, InProcessOptions};
use rollout::Mode;

use crate::driver::Driver;
use crate::recorded::{edited, log, module, replayed};
use crate::wrong::{MakeWrong, Wrong};

#[track_caller]
fn different(verdict: Verdict) -> Difference {
    match verdict {
        Verdict::Different(difference) => *difference,
        other => panic!("no difference: {other:?}"),
    }
}

/// The difference of a log whose first record that `edit` takes is edited.
#[track_caller]
fn edit_once(edit: impl Fn(&mut Entry<'_>) -> bool) -> Difference {
    let mut done = false;
    let log = edited(&log(), |_, entry| {
        done = done || edit(entry);
        true
    });
    assert!(done, "the log has such a record");
    different(replayed(&log))
}

fn run_of<'e>(entry: &'e mut Entry<'_>, method: &str) -> Option<&'e mut Run> {
    match entry {
        Entry::Observed(Observation::Run(run)) if run.method.as_deref() == Some(method) => Some(run),
        _ => None,
    }
}

#[test]
fn an_unedited_log_is_equal() {
    assert_eq!(replayed(&log()), Verdict::Equal);
}

#[test]
fn another_recorded_count_is_found_in_its_run_with_both_values() {
    let difference = edit_once(|entry| match run_of(entry, "keep") {
        Some(run) => {
            run.instructions += 1;
            true
        }
        None => false,
    });
    let Difference { round, run, canister, method, what, field, names, .. } = difference;
    // Runs: start is none, init, inc and its query, the query of `never`, keep.
    assert_eq!((round, run, method.as_deref()), (4, Some(5), Some("keep")));
    assert_eq!(canister.unwrap().to_text(), "22ajg-aqaaa-aaaap-adukq-cai");
    assert_eq!(what, "run 5, update `keep` of canister 22ajg-aqaaa-aaaap-adukq-cai");
    assert_eq!((field.name.as_str(), names), ("instructions", ["recorded", "replayed"].map(str::to_owned)));
    let [recorded, replayed] = field.values.map(|value| value.parse::<u64>().unwrap());
    assert_eq!(recorded, replayed + 1);
}

#[test]
fn another_recorded_page_is_named() {
    let difference = edit_once(|entry| match run_of(entry, "keep").and_then(|run| run.effects.as_mut()) {
        Some(effects) => {
            effects.pages[1][0].crc32 ^= 1;
            true
        }
        None => false,
    });
    assert_eq!(difference.field.name, "stable memory page 2");
    assert_eq!(difference.field.page, Some((Space::Stable, 2)));
}

#[test]
fn another_recorded_answer_is_found_at_its_message() {
    let difference = edit_once(|entry| match entry {
        Entry::Observed(Observation::Answered { message: 2, answer }) => {
            *answer = Answer::Reply(Excerpt::of(b"\x07"));
            true
        }
        _ => false,
    });
    let Difference { round, message, method, what, field, .. } = difference;
    assert_eq!((round, message, method.as_deref()), (2, Some(2), Some("inc")));
    assert_eq!(what, "the answer to message 2, `inc` to 22ajg-aqaaa-aaaap-adukq-cai");
    assert_eq!(field.values, ["reply 0x07", "reply 0x01"].map(str::to_owned));
}

#[test]
fn another_recorded_admission_is_found_and_its_reason_shown() {
    let difference = edit_once(|entry| match entry {
        Entry::Submit { admission: admission @ Admission::Refused(_), .. } => {
            *admission = Admission::Taken;
            true
        }
        _ => false,
    });
    let Difference { message, method, field, .. } = difference;
    assert_eq!((message, method.as_deref(), field.name.as_str()), (Some(3), Some("never"), "admission"));
    assert_eq!(field.values[0], "Taken");
    assert_eq!(field.values[1], "Refused(IC0406 \"Canister rejected the message\")");
    let difference = edit_once(|entry| match entry {
        Entry::Submit { admission: admission @ Admission::Taken, .. } => {
            *admission = Admission::Refused(Refusal { code: 201, text: Excerpt::of(b"full") });
            true
        }
        _ => false,
    });
    assert_eq!(difference.field.values, ["Refused(IC0201 \"full\")", "Taken"].map(str::to_owned));
}

#[test]
fn other_recorded_canisters_queries_and_roots_are_found() {
    let difference = edit_once(|entry| match entry {
        Entry::Observed(Observation::Canister { after: Some(After { version, .. }), .. }) => {
            *version += 1;
            true
        }
        _ => false,
    });
    assert_eq!(difference.field.name, "version");
    let difference = edit_once(|entry| match entry {
        Entry::Observed(Observation::Canister { after: Some(After { cycles, .. }), .. }) => {
            *cycles += 1;
            true
        }
        _ => false,
    });
    assert_eq!(difference.field.name, "cycles");
    let difference = edit_once(|entry| match entry {
        Entry::Observed(Observation::QueryAnswered(answer)) => {
            *answer = Answer::Reply(Excerpt::of(b"\xff"));
            true
        }
        _ => false,
    });
    assert_eq!((difference.what.as_str(), difference.round), ("the answer to query 1", 2));
    let difference = edit_once(|entry| match entry {
        Entry::Observed(Observation::Root(root)) => {
            root[31] ^= 1;
            true
        }
        _ => false,
    });
    assert_eq!((difference.what.as_str(), difference.round), ("the state after the round", 1));
    assert_eq!(difference.field.name, "state root");
    let difference = edit_once(|entry| match entry {
        Entry::Create { created, .. } => {
            *created = Err(Refusal { code: 101, text: Excerpt::of(b"none left") });
            true
        }
        _ => false,
    });
    assert_eq!(difference.what, "a canister made by the operator");
}

#[test]
fn a_recorded_run_too_few_or_too_many_is_found() {
    let run =
        |entry: &Entry<'_>| matches!(entry, Entry::Observed(Observation::Run(run)) if run.kind == "init");
    let fewer = edited(&log(), |_, entry| !run(entry));
    let difference = different(replayed(&fewer));
    assert_eq!((difference.field.name.as_str(), difference.round), ("what happened", 1));
    let other = edit_once(|entry| match entry {
        Entry::Observed(Observation::Run(run)) => {
            run.kind = "update".to_owned();
            true
        }
        _ => false,
    });
    assert_eq!(other.field.name, "what ran");
}

#[test]
fn a_round_that_failed_where_it_was_recorded_leaves_it_undecided() {
    let failed = edited(&log(), |_, entry| {
        if let Entry::Observed(observation @ Observation::Run(_)) = entry
            && let Observation::Run(run) = &*observation
        {
            let canister = run.canister;
            *observation = Observation::Failed { canister, cause: "out of workers_max".to_owned() };
        }
        true
    });
    let Verdict::Undecided(why) = replayed(&failed) else { panic!("decided") };
    let said = "the node that recorded could not run canister 22ajg-aqaaa-aaaap-adukq-cai in round 1 (out of workers_max)";
    assert!(why.starts_with(said), "{why}");
}

/// Replays beside a node whose sandbox is `wrong`.
fn beside_wrong(method: &'static str, make_wrong: MakeWrong) -> Verdict {
    let node = Node::new(NodeOptions::fixed(Mode::InProcess, Preset::Application)).unwrap();
    let other =
        node.twin_on(Mode::Sandboxed, Arc::new(Wrong::in_method(&node, method, make_wrong)), None).unwrap();
    let log = log();
    on_executor_stack(|| {
        let mut log = Reader::begin(&log[..]).unwrap();
        let names = ["in-process", "sandboxed"].map(str::to_owned);
        Play::beside(node, other, names).run(&mut log, None).unwrap()
    })
}

/// A page with one byte flipped.
fn flipped(snapshot: &Snapshot, version: &PageVersion, byte: usize) -> PageVersion {
    let mut page: [u8; PAGE_BYTES] = *version.bytes();
    page[byte] ^= 0x80;
    snapshot.arena.store(&page).unwrap()
}

#[test]
fn a_wrong_byte_of_a_page_is_found_with_memory_page_and_byte() {
    let difference = different(beside_wrong("keep", |snapshot, outcome| {
        let (_, version) = &mut outcome.effects.as_mut().unwrap().memory.heap[0];
        *version = flipped(snapshot, version, 17);
    }));
    assert_eq!(difference.what, "run 5, update `keep` of canister 22ajg-aqaaa-aaaap-adukq-cai");
    assert_eq!(difference.field.name, "heap page 0, byte 17");
    assert_eq!(difference.field.values, ["0x65", "0xe5"].map(str::to_owned));
    let difference = different(beside_wrong("keep", |snapshot, outcome| {
        let (_, version) = &mut outcome.effects.as_mut().unwrap().memory.stable[0];
        *version = flipped(snapshot, version, 4095);
    }));
    assert_eq!(difference.field.name, "stable memory page 2, byte 4095");
    assert_eq!(difference.field.values, ["0x00", "0x80"].map(str::to_owned));
    assert_eq!(difference.field.page, Some((Space::Stable, 2)));
}

#[test]
fn each_wrong_part_of_an_outcome_is_found_by_its_name() {
    let cases: [(&str, &str, MakeWrong); 9] = [
        ("keep", "instructions", |_, outcome| outcome.instructions += 1),
        ("keep", "certified data", |_, outcome| {
            outcome.effects.as_mut().unwrap().certified_data = Some(vec![9]);
        }),
        ("keep", "global timer", |_, outcome| outcome.effects.as_mut().unwrap().global_timer = Some(7)),
        ("inc", "reply", |_, outcome| {
            outcome.effects.as_mut().unwrap().answer = Some(execution::Answer::Reply(vec![7]));
        }),
        ("inc", "globals", |_, outcome| {
            outcome.effects.as_mut().unwrap().globals = Arc::from([execution::GlobalValue::I32(77)]);
        }),
        ("inc", "logs", |_, outcome| outcome.logs = vec![LogLine { text: b"bye".to_vec() }]),
        ("no", "ending", |_, outcome| {
            outcome.effects.as_mut().unwrap().answer = Some(execution::Answer::Reject("bye".to_owned()));
        }),
        ("inc_by_call", "outgoing call 1", |_, outcome| {
            outcome.effects.as_mut().unwrap().calls[0].arg = b"other".to_vec();
        }),
        ("get", "reply", |_, outcome| {
            outcome.effects.as_mut().unwrap().answer = Some(execution::Answer::Reply(vec![7]));
        }),
    ];
    for (method, field, make_wrong) in cases {
        let difference = different(beside_wrong(method, make_wrong));
        assert_eq!(difference.field.name, field, "{method}: {difference}");
        assert_eq!(difference.method.as_deref(), Some(method), "{difference}");
        assert_ne!(difference.field.values[0], difference.field.values[1]);
    }
}

#[test]
fn what_no_run_shows_is_found_in_the_state_of_its_canister() {
    let difference = different(beside_wrong("keep", |_, outcome| {
        // Written elsewhere: each side wrote a page that the other did not.
        outcome.effects.as_mut().unwrap().memory.heap[0].0 = 9;
    }));
    assert_eq!(difference.what, "canister 22ajg-aqaaa-aaaap-adukq-cai after the round");
    assert_eq!(difference.field.name, "heap page 0, byte 0");
    assert_eq!(difference.field.values, ["0x02", "0x01"].map(str::to_owned));
}

/// Runs nothing.
struct Failing;

impl Backend for Failing {
    fn execute(&self, _: &Snapshot, _: &Invocation) -> Result<Execution, BackendError> {
        Err(Violation("it lied".to_owned()).into())
    }

    fn query(&self, _: &Snapshot, _: &Invocation, _: Option<&Snapshot>) -> Result<Outcome, BackendError> {
        Err(Violation("it lied".to_owned()).into())
    }
}

#[test]
fn a_node_that_can_not_run_a_message_leaves_it_undecided_and_says_which() {
    let node = Node::new(NodeOptions::fixed(Mode::InProcess, Preset::Application)).unwrap();
    let failing = node.twin_on(Mode::Sandboxed, Arc::new(Failing), None).unwrap();
    let log = log();
    let verdict = on_executor_stack(|| {
        let mut log = Reader::begin(&log[..]).unwrap();
        Play::beside_recording(failing, "sandboxed").run(&mut log, None).unwrap()
    });
    let Verdict::Undecided(why) = verdict else { panic!("decided: {verdict:?}") };
    let start = "the node (sandboxed) could not run canister ";
    assert!(why.starts_with(start) && why.ends_with("in round 1: violation: it lied"), "{why}");
}

/// Right, where it doesn't fail.
struct FailingAt {
    right: InProcess,
    fails: fn(&Snapshot, &EntryPoint) -> bool,
}

impl Backend for FailingAt {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        match (self.fails)(snapshot, &invocation.entry) {
            true => Failing.execute(snapshot, invocation),
            false => self.right.execute(snapshot, invocation),
        }
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        match (self.fails)(snapshot, &invocation.entry) {
            true => Failing.query(snapshot, invocation, overlay),
            false => self.right.query(snapshot, invocation, overlay),
        }
    }
}

/// A node in `mode` whose sandbox fails there.
fn failing_at(mode: Mode, fails: fn(&Snapshot, &EntryPoint) -> bool) -> Node {
    let node = Node::new(NodeOptions::fixed(Mode::InProcess, Preset::Application)).unwrap();
    let right = InProcess::new(node.engine().clone(), &InProcessOptions::default());
    node.twin_on(mode, Arc::new(FailingAt { right, fails }), None).unwrap()
}

#[track_caller]
fn undecided(node: Node) -> String {
    let log = log();
    let verdict = on_executor_stack(|| {
        let mut log = Reader::begin(&log[..]).unwrap();
        Play::beside_recording(node, "replayed").run(&mut log, None).unwrap()
    });
    let Verdict::Undecided(why) = verdict else { panic!("decided: {verdict:?}") };
    why
}

#[test]
fn what_shadow_could_not_compare_is_not_called_equal() {
    let why = undecided(failing_at(Mode::Shadow, |_, entry| entry.method() == Some("keep")));
    let numbers: Vec<u64> = why.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(why.starts_with("shadow compared "), "{why}");
    assert!(numbers[0] > 0 && numbers[0] < numbers[1], "{why}");
}

#[test]
fn a_query_or_an_inspection_that_the_node_can_not_run_leaves_it_undecided() {
    const UNAVAILABLE: &str = "canister 22ajg-aqaaa-aaaap-adukq-cai is unavailable on this node, retry";
    let why = undecided(failing_at(Mode::Sandboxed, |_, entry| matches!(entry, EntryPoint::Query { .. })));
    let said = "the node (replayed) could not answer a query in round 2: ";
    assert_eq!(why.to_lowercase(), format!("{said}{UNAVAILABLE}"));
    let why =
        undecided(failing_at(Mode::Sandboxed, |_, entry| matches!(entry, EntryPoint::InspectMessage { .. })));
    let said = "the node (replayed) could not inspect a message in round 1: ";
    assert_eq!(why.to_lowercase(), format!("{said}{UNAVAILABLE}"));

    // The same where it was recorded.
    let refusal = || Refusal { code: 201, text: Excerpt::of(UNAVAILABLE.as_bytes()) };
    let no_query = |entry: &mut Entry<'_>| {
        if let Entry::Observed(Observation::QueryAnswered(answer)) = entry {
            *answer = Answer::Rejected(refusal());
        }
        // The run before it didn't happen.
        !matches!(entry, Entry::Observed(Observation::Run(run)) if run.kind == "query")
    };
    let no_inspection = |entry: &mut Entry<'_>| {
        if let Entry::Submit { message, admission } = entry
            && message.method == "inc"
        {
            *admission = Admission::Refused(refusal());
        }
        true
    };
    type Edit<'a> = &'a dyn Fn(&mut Entry<'_>) -> bool;
    let cases: [(&str, Edit<'_>); 2] = [("answer a query", &no_query), ("inspect a message", &no_inspection)];
    for (what, edit) in cases {
        let verdict = replayed(&edited(&log(), |_, entry| edit(entry)));
        let Verdict::Undecided(why) = verdict else { panic!("decided: {verdict:?}") };
        assert!(why.starts_with(&format!("the node that recorded could not {what} in round ")), "{why}");
    }
}

#[test]
fn a_failure_of_one_canister_is_recorded_before_what_others_did_in_its_round() {
    let mut node = failing_at(Mode::Sandboxed, |snapshot, entry| {
        snapshot.canister.to_text() == "22ajg-aqaaa-aaaap-adukq-cai"
            && matches!(entry, EntryPoint::Update { method, .. } if method == "keep")
    });
    let mut file = tempfile::tempfile().unwrap();
    node.record(file.try_clone().unwrap()).unwrap();
    on_executor_stack(move || {
        let mut driver = Driver::new(node);
        let canisters = [1, 2].map(|nonce| {
            let canister =
                driver.node.create_canister(Principal::anonymous(), 1_000_000_000_000_000).unwrap();
            let install = management::install_code(InstallMode::Install, canister, &module(), b"", false);
            let installed = driver.send(Principal::management_canister(), "install_code", &install, nonce);
            driver.answer(&installed);
            canister
        });
        driver.send(canisters[0], "keep", b"", 3);
        let other = driver.send(canisters[1], "inc", b"", 4);
        driver.answer(&other);
        assert!(!driver.failures.is_empty(), "the first canister failed");
        driver.node.finish_recording().unwrap();
    });
    file.rewind().unwrap();
    let mut log = Vec::new();
    file.read_to_end(&mut log).unwrap();
    let verdict = replayed(&log);
    let Verdict::Undecided(why) = verdict else { panic!("decided: {verdict:?}") };
    let said = "the node that recorded could not run canister 22ajg-aqaaa-aaaap-adukq-cai in round 3 ";
    assert!(why.starts_with(said), "{why}");
}
