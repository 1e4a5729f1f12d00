//! Rollouts in the policy: what is refused, what a step says of whom, and what is on trial.

use std::time::Duration;

use execution::Principal;
use jiff::Timestamp;
use proptest::prelude::*;
use rollout::machine::OnFail;
use rollout::{
    Conditions, Design, ExposedStep, Exposure, Exposures, GuardTest, Layer, LivePolicy, LoadError, Mode,
    Policy, Reason, Scope, Side, Trigger,
};

/// A rollout with a step of every design, as the reference has it.
pub(crate) const FULL: &str = r#"schema = 1
[meta]
review_by = 2027-03-01
reason_required = true
[default]
mode = "in-process"
[switch]
drain_timeout = "20s"
[subnets.one]
labels = { tier = "canary" }
[subnets.two]
labels = { tier = "app" }
[rollouts.q4]
candidate = "sandboxed"
control = "in-process"
salt = "sandbox-2026q4"
hash = "sip13-ppm-v1"
holdout_ppm = 10_000
on_failure = "rollback-all"
retry_cooldown = "1h"
hold_at_step = 5
[[rollouts.q4.steps]]
name = "aa"
scope = { subnets = ["one"] }
design = "aa"
bake = "30m"
[[rollouts.q4.steps]]
name = "shadow"
scope = { subnets = ["one"] }
mode = "shadow"
percent = 50
bake = "24h"
require = { min_comparisons = 1_000 }
[[rollouts.q4.steps]]
name = "one-node"
scope = { subnets = ["one"], nodes_per_subnet = 1 }
bake = "4h"
max_bake = "12h"
[[rollouts.q4.steps]]
name = "ten-percent"
scope = { label = "tier=canary" }
percent = 10.5
bake = "12h"
max_bake = "24h"
[[rollouts.q4.steps]]
name = "all"
scope = { subnets = ["two", "one"] }
bake = "1d"
[[guards]]
name = "p99"
type = "latency-ratio"
quantile = 0.99
limit = 1.5
kinds = ["query", "update"]
[[guards]]
name = "traps"
type = "rate-ratio"
event = "trap"
limit = 1.1
allowance = 3
on_fail = "pause"
[[guards]]
name = "crash"
type = "fuse"
event = "sandbox-crash"
max = 3
window = "10m"
[[guards]]
name = "divergence"
type = "fuse"
event = "confirmed-divergence"
[guard_defaults]
looks = "1m"
[measure]
interval = "5s"
block = "30s"
warmup_discard = "0ms"
"#;

fn full() -> Policy {
    Policy::parse("p.toml", FULL).expect("the sample is valid")
}

/// The step of a policy that is exposed.
pub(crate) fn exposed(policy: &Policy, step: impl Into<Option<usize>>) -> Option<ExposedStep> {
    step.into().map(|index| ExposedStep { index, digest: policy.rollouts()[0].steps[index].digest })
}

fn exposures(step: impl Into<Option<usize>>) -> Exposures {
    exposures_of(&full(), step)
}

fn exposures_of(policy: &Policy, step: impl Into<Option<usize>>) -> Exposures {
    let exposure = Exposure { step: exposed(policy, step), ..Exposure::default() };
    Exposures { rollouts: [("q4".to_owned(), exposure)].into(), nodes: nodes() }
}

fn nodes() -> Vec<String> {
    ["n1", "n2", "n3"].map(str::to_owned).into()
}

fn canister(text: &str) -> Principal {
    Principal::from_text(text).unwrap()
}

/// A canister for every number.
fn numbered(number: u64) -> Principal {
    Principal::from_slice(&number.to_be_bytes())
}

#[test]
fn what_a_rollout_says_is_read_whole() {
    let policy = full();
    let rollout = policy.rollout("q4").unwrap();
    assert_eq!((rollout.candidate, rollout.control), (Mode::Sandboxed, Mode::InProcess));
    assert_eq!((rollout.holdout_ppm, rollout.hold_at_step), (10_000, Some(4)));
    assert_eq!(rollout.retry_cooldown, Duration::from_secs(3_600));
    let steps: Vec<_> = rollout
        .steps
        .iter()
        .map(|step| (step.name.as_str(), step.design, step.mode, step.percent_ppm, step.subnets.join(" ")))
        .collect();
    assert_eq!(
        steps,
        [
            ("aa", Design::Aa, Mode::Sandboxed, 1_000_000, "one".to_owned()),
            ("shadow", Design::Percent, Mode::Shadow, 500_000, "one".to_owned()),
            ("one-node", Design::NodeSplit, Mode::Sandboxed, 1_000_000, "one".to_owned()),
            ("ten-percent", Design::Switchback, Mode::Sandboxed, 105_000, "one".to_owned()),
            ("all", Design::Percent, Mode::Sandboxed, 1_000_000, "one two".to_owned()),
        ]
    );
    assert_eq!(rollout.steps[0].max_bake, Duration::from_secs(5_400), "three times bake where it isn't said");
    assert_eq!(rollout.steps[1].comparisons_min, 1_000);
    let guards: Vec<_> = policy.guards().iter().map(|guard| (guard.name.as_str(), guard.on_fail)).collect();
    assert_eq!(
        guards,
        [
            ("p99", OnFail::Rollback),
            ("traps", OnFail::Pause),
            ("crash", OnFail::Rollback),
            ("divergence", OnFail::Rollback)
        ]
    );
    assert_eq!(policy.guards()[2].test, GuardTest::Crashes { max: 3, window: Duration::from_secs(600) });
    assert!(policy.reason_required());
    assert_eq!(policy.drain_timeout(), Duration::from_secs(20));
    assert_eq!(policy.measure().block, Duration::from_secs(30));
}

#[test]
fn a_guard_judges_the_steps_that_show_what_it_asks_about() {
    let policy = full();
    let judged = |guard: usize| -> Vec<bool> {
        policy.rollouts()[0].steps.iter().map(|step| policy.guards()[guard].judges(step)).collect()
    };
    //                     aa     shadow one-node ten-percent all
    assert_eq!(judged(0), [true, false, true, true, false], "p99");
    assert_eq!(judged(1), [false, false, true, true, false], "traps");
    assert_eq!(judged(2), [false, true, true, true, true], "crash");
    assert_eq!(judged(3), [false, true, false, false, false], "divergence");
}

#[test]
fn what_contradicts_itself_is_refused_where_it_stands() {
    for (from, to, wrong) in [
        ("control = \"in-process\"", "control = \"sandboxed\"", "candidate and control are both `sandboxed`"),
        ("candidate = \"sandboxed\"", "candidate = \"shadow\"", "`candidate` is `shadow`"),
        ("hold_at_step = 5", "hold_at_step = 6", "there are 5 steps"),
        ("name = \"all\"", "name = \"aa\"", "step `aa` stands twice in [rollouts.q4]"),
        ("tier=canary", "tier=canaries", "no [subnets.ID] has that label"),
        ("max_bake = \"12h\"", "max_bake = \"3h\"", "bake (14400s) exceeds max_bake (10800s)"),
        (
            "nodes_per_subnet = 1 }",
            "nodes_per_subnet = 1 }\ndesign = \"aa\"",
            "nodes_per_subnet without a node-split",
        ),
        ("design = \"aa\"", "design = \"node-split\"", "a node-split on how many nodes?"),
        ("design = \"aa\"", "design = \"aa\"\npercent = 5", "`percent` means nothing in a step of design aa"),
        ("mode = \"shadow\"\n", "mode = \"shadow\"\ndesign = \"switchback\"\n", "shadow compares by itself"),
        ("mode = \"shadow\"\n", "mode = \"in-process\"\n", "mode `in-process` is not the candidate"),
        ("mode = \"shadow\"\n", "", "comparisons are made in shadow alone"),
        (
            "[\"two\", \"one\"] }",
            "[\"two\", \"one\"] }\npercent = 10",
            "less of subnet one than a step before",
        ),
        (
            "event = \"confirmed-divergence\"",
            "event = \"sandbox-crash\"",
            "a guard of type `fuse` has no `max`",
        ),
        (
            "event = \"confirmed-divergence\"",
            "event = \"confirmed-divergence\"\nmax = 1",
            "a divergence that is accepted",
        ),
        ("event = \"trap\"", "event = \"sandbox-crash\"", "a rate of `sandbox-crash`"),
        ("event = \"confirmed-divergence\"", "event = \"trap\"", "a fuse on traps"),
        ("quantile = 0.99", "allowance = 1", "a guard of type `latency-ratio` has no `quantile`"),
        ("limit = 1.5", "limit = 0.9", "`limit` is `0.9`"),
        ("limit = 1.5", "limit = 1.00000001", "`limit` is `1.00000001`"),
        ("percent = 10.5", "percent = 100.5", "`percent` is `100.5`"),
        ("percent = 10.5", "percent = nan", "`percent` is `nan`"),
        ("quantile = 0.99", "quantile = 99", "`quantile` is `99`"),
        ("name = \"traps\"", "name = \"p99\"", "guard `p99` stands twice"),
        ("name = \"traps\"", "name = \"../x\"", "`name` is `../x`"),
        (
            "max_bake = \"12h\"",
            "max_bake = \"13h\"",
            "max_bake (46800s) has more than the 1440 pairs of blocks that are compared",
        ),
        ("block = \"30s\"", "block = \"31s\"", "a block of 31s is no multiple of the interval 5s"),
        ("block = \"30s\"", "block = \"5s\"", "a block of 5s is over before it has settled"),
        ("scope = { label", "scope = { subnet = \"x\", label", "unknown key `subnet` in `scope`"),
        ("scope = { label = \"tier=canary\" }", "scope = {}", "`scope` names no subnet"),
        (
            "[\"one\"], nodes_per_subnet = 1",
            "[\"one\"], nodes_per_subnet = 0",
            "`nodes_per_subnet` in `scope` is an integer",
        ),
        ("min_comparisons = 1_000", "comparisons = 1", "unknown key `comparisons` in `require`"),
        ("sip13-ppm-v1", "murmur3", "unknown hash `murmur3`"),
        ("rollback-all", "rollback-step", "unknown on_failure `rollback-step`"),
        (
            "bake = \"4h\"\n",
            "bake = \"4h\"\ngates = []\n",
            "`gates` in [[rollouts.q4.steps]] is not supported yet",
        ),
        (
            "[guard_defaults]",
            "[guard_defaults]\nalpha = 0.01",
            "`alpha` in [guard_defaults] is not supported yet",
        ),
        ("[guard_defaults]", "[store]\n[guard_defaults]", "`store` is not supported yet"),
    ] {
        assert!(FULL.contains(from), "{from}");
        let text = FULL.replacen(from, to, 1);
        let errors = Policy::parse("p.toml", &text).expect_err(to);
        let line =
            |error: &rollout::Diagnostic| text.lines().nth(error.position.line - 1).unwrap().to_owned();
        let found = errors.iter().find(|error| error.message.contains(wrong));
        let found = found.unwrap_or_else(|| panic!("{to}: {wrong} isn't among {errors:#?}"));
        assert!(!line(found).is_empty(), "{found}");
    }
}

#[test]
fn a_step_that_no_guard_can_judge_is_refused_and_so_are_two_rollouts_of_one_subnet() {
    let without = FULL.replace("on_fail = \"pause\"", "on_fail = \"observe\"");
    let (head, tail) = without.split_once("[[guards]]\nname = \"crash\"").unwrap();
    let tail = &tail[tail.find("[guard_defaults]").unwrap()..];
    let errors = Policy::parse("p.toml", &format!("{head}{tail}")).unwrap_err();
    let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "step \"shadow\": no guard that rolls back or pauses can judge it",
            "step \"all\": no guard that rolls back or pauses can judge it"
        ]
    );
    let second = "[rollouts.other]\ncandidate = \"sandboxed\"\ncontrol = \"in-process\"\n\
        [[rollouts.other.steps]]\nname = \"s\"\nscope = { subnets = [\"two\"] }\nbake = \"1h\"\n";
    let errors = Policy::parse("p.toml", &format!("{FULL}{second}")).unwrap_err();
    assert_eq!(errors[0].message, "rollouts `other` and `q4` both cover subnet two");
    let empty = "[rollouts.none]\ncandidate = \"sandboxed\"\ncontrol = \"in-process\"\nsteps = []\n";
    let errors = Policy::parse("p.toml", &format!("{FULL}{empty}")).unwrap_err();
    assert_eq!(errors[0].message, "expected tables [[rollouts.none.steps]], found an empty array");
}

/// Computed by an implementation of SipHash-1-3 that has nothing in common with this one.
#[test]
fn buckets_are_those_of_the_golden_vectors() {
    for (salt, id, bucket) in [
        ("sandbox-2026q4", "rrkah-fqaaa-aaaaa-aaaaq-cai", 625_568),
        ("sandbox-2026q4", "ryjl3-tyaaa-aaaaa-aaaba-cai", 494_476),
        ("x", "qhbym-qaaaa-aaaaa-aaafq-cai", 657_687),
        ("rollout", "r7inp-6aaaa-aaaaa-aaabq-cai", 457_181),
    ] {
        let policy = Policy::parse("p", &FULL.replace("sandbox-2026q4", salt)).unwrap();
        assert_eq!(policy.rollouts()[0].bucket(&canister(id)), bucket, "{salt} {id}");
    }
}

fn decide(
    exposures: &Exposures,
    subnet: &str,
    node: &str,
    canister: Principal,
) -> (Mode, Reason, Layer, bool) {
    let scope = Scope { subnet, node, canister: Some(canister) };
    let conditions = Conditions { at: Timestamp::UNIX_EPOCH, killed: false, exposures };
    let decision = full().decide(&scope, conditions);
    (decision.mode, decision.reason, decision.decided_by, decision.on_trial)
}

#[test]
fn a_step_says_what_its_design_means() {
    let policy = full();
    let rollout = policy.rollout("q4").unwrap();
    let with =
        |wanted: &dyn Fn(u32) -> bool| (0..).map(numbered).find(|id| wanted(rollout.bucket(id))).unwrap();
    let (first, middle) =
        (with(&|bucket| bucket < 105_000), with(&|bucket| (105_000..500_000).contains(&bucket)));
    let (late, held_out) =
        (with(&|bucket| (500_000..990_000).contains(&bucket)), with(&|bucket| bucket >= 990_000));
    let chosen = rollout.chosen(&rollout.steps[2], &nodes())[0].to_owned();
    let other = nodes().into_iter().find(|node| *node != chosen).unwrap();
    use Mode::{InProcess, Sandboxed, Shadow};
    let rollout = Layer::Rollout;
    for (step, node, id, expected) in [
        (None, &other, first, (InProcess, Reason::Default, Layer::Default, false)),
        (Some(0), &other, first, (InProcess, Reason::Step, rollout, true)),
        (Some(0), &other, held_out, (InProcess, Reason::Step, rollout, true)),
        (Some(1), &other, first, (Shadow, Reason::Split, rollout, true)),
        (Some(1), &other, middle, (Shadow, Reason::Split, rollout, true)),
        (Some(1), &other, late, (InProcess, Reason::Split, rollout, false)),
        (Some(2), &chosen, late, (Sandboxed, Reason::Split, rollout, true)),
        (Some(2), &other, late, (InProcess, Reason::Split, rollout, true)),
        (Some(2), &chosen, held_out, (InProcess, Reason::Holdout, rollout, false)),
        (Some(2), &other, held_out, (InProcess, Reason::Holdout, rollout, false)),
        (Some(3), &other, first, (Sandboxed, Reason::Split, rollout, true)),
        (Some(3), &other, middle, (InProcess, Reason::Split, rollout, false)),
        (Some(4), &other, late, (Sandboxed, Reason::Step, rollout, true)),
        (Some(4), &other, held_out, (InProcess, Reason::Holdout, rollout, false)),
    ] {
        assert_eq!(decide(&exposures(step), "one", node, id), expected, "{step:?} {node} {id}");
    }
    for (block, mode) in [(Side::Control, InProcess), (Side::Candidate, Sandboxed)] {
        let exposure = Exposure { step: exposed(&policy, 3), block: Some(block), ..Exposure::default() };
        let exposures = Exposures { rollouts: [("q4".to_owned(), exposure)].into(), nodes: nodes() };
        assert_eq!(decide(&exposures, "one", &other, first), (mode, Reason::Split, rollout, true));
        assert_eq!(decide(&exposures, "one", &other, middle), (InProcess, Reason::Split, rollout, false));
    }
    // A subnet that no step has reached yet, and one that no step covers.
    for subnet in ["two", "three"] {
        let expected = (InProcess, Reason::Default, Layer::Default, false);
        assert_eq!(decide(&exposures(3), subnet, "n1", first), expected, "{subnet}");
    }
}

#[test]
fn another_text_of_a_step_is_not_in_force_before_it_is_started() {
    let edited = Policy::parse("p", &FULL.replace("percent = 10.5", "percent = 100")).unwrap();
    let scope = Scope { subnet: "one", node: "n1", canister: None };
    for (exposures, mode) in [(exposures(3), Mode::InProcess), (exposures_of(&edited, 3), Mode::Sandboxed)] {
        let conditions = Conditions { at: Timestamp::UNIX_EPOCH, killed: false, exposures: &exposures };
        assert_eq!(edited.decide(&scope, conditions).mode, mode);
    }
}

#[test]
fn a_latch_puts_the_control_in_force_above_pins_and_below_the_floor() {
    let latched = Exposure { latched: true, ..Exposure::default() };
    let latched = Exposures { rollouts: [("q4".to_owned(), latched)].into(), nodes: nodes() };
    for (more, expected) in [
        ("", (Mode::InProcess, Reason::Latched, Layer::Latch)),
        ("[nodes.n1]\nmode = \"sandboxed\"\n", (Mode::InProcess, Reason::Latched, Layer::Latch)),
        ("[subnets.three]\nfloor = \"sandboxed\"\n", (Mode::InProcess, Reason::Latched, Layer::Latch)),
    ] {
        let policy = Policy::parse("p", &format!("{FULL}{more}")).unwrap();
        let scope = Scope { subnet: "one", node: "n1", canister: None };
        let conditions = Conditions { at: Timestamp::UNIX_EPOCH, killed: false, exposures: &latched };
        let decision = policy.decide(&scope, conditions);
        assert_eq!((decision.mode, decision.reason, decision.decided_by), expected, "{more}");
    }
    let floored = FULL.replace("[subnets.one]", "[subnets.one]\nfloor = \"sandboxed\"");
    let policy = Policy::parse("p", &floored).unwrap();
    let scope = Scope { subnet: "one", node: "n1", canister: None };
    let decision =
        policy.decide(&scope, Conditions { at: Timestamp::UNIX_EPOCH, killed: false, exposures: &latched });
    assert_eq!((decision.mode, decision.reason), (Mode::Sandboxed, Reason::Floored));
}

#[test]
fn an_explanation_names_step_bucket_and_threshold() {
    let policy = full();
    let exposures = exposures(3);
    let explain = |id| {
        let scope = Scope { subnet: "one", node: "n1", canister: Some(id) };
        let conditions = Conditions { at: Timestamp::UNIX_EPOCH, killed: false, exposures: &exposures };
        policy.resolve(&scope, conditions).to_string()
    };
    let text = explain(canister("rrkah-fqaaa-aaaaa-aaaaq-cai"));
    assert!(
        text.contains(
            "→ rollout   in-process   p.toml:39:1   q4 step 4/5 ten-percent   bucket 625568 >= 105000 ppm"
        ),
        "{text}"
    );
    assert!(text.starts_with("in effect: IN-PROCESS   reason SPLIT"), "{text}");
    assert!(text.contains("  latch     none"), "{text}");
}

proptest! {
    #[test]
    fn more_percent_only_adds_canisters(low in 0_u32..100, more in 0_u32..100, id: u64) {
        let high = (low + more).min(100);
        let sandboxed = |percent: u32| {
            let text = FULL.replace("percent = 10.5", &format!("percent = {percent}"));
            let policy = Policy::parse("p", &text).unwrap();
            let scope = Scope { subnet: "one", node: "n1", canister: Some(numbered(id)) };
            let at = Timestamp::UNIX_EPOCH;
            policy.decide(&scope, Conditions { at, killed: false, exposures: &exposures_of(&policy, 3) }).mode == Mode::Sandboxed
        };
        prop_assert!(!sandboxed(low) || sandboxed(high));
    }

    #[test]
    fn what_is_in_force_is_what_the_policy_decides(step in proptest::option::of(0_usize..5), node in 0_usize..3, id: u64) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.toml");
        std::fs::write(&path, FULL).unwrap();
        let node = nodes()[node].clone();
        let live = LivePolicy::watch(&path, "one", &node).unwrap();
        let in_force = live.expose(exposures(step));
        for id in [numbered(id), numbered(id / 2), numbered(!id)] {
            let expected = decide(&exposures(step), "one", &node, id);
            prop_assert_eq!(in_force.mode_of(&id), expected.0);
        }
    }
}

#[test]
fn a_policy_that_drops_or_turns_a_rollout_that_holds_something_is_refused_until_it_is_released() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    std::fs::write(&path, FULL).unwrap();
    let live = LivePolicy::watch(&path, "one", "n1").unwrap();
    let latch = |released| {
        let exposure = Exposure { latched: true, released, ..Exposure::default() };
        Exposures { rollouts: [("q4".to_owned(), exposure)].into(), nodes: nodes() }
    };
    let before = live.expose(latch(false));
    assert_eq!(before.mode(), Mode::InProcess);
    let turned = "schema = 1\n[rollouts.q4]\ncandidate = \"in-process\"\ncontrol = \"sandboxed\"\n\
        [[rollouts.q4.steps]]\nname = \"half\"\nscope = { subnets = [\"one\"] }\npercent = 50\nbake = \"1h\"\n\
        [[guards]]\nname = \"p99\"\ntype = \"latency-ratio\"\nquantile = 0.99\nlimit = 1.5\n";
    let elsewhere = FULL
        .replace("[\"one\"]", "[\"two\"]")
        .replace("[\"two\", \"one\"]", "[\"two\"]")
        .replace("tier=canary", "tier=app");
    let without = "schema = 1\n[default]\nmode = \"sandboxed\"\n";
    for exposures in [latch(false), exposures(3)] {
        live.expose(exposures);
        for text in [turned, &elsewhere, without] {
            Policy::parse("p", text).expect("valid by itself");
            std::fs::write(&path, text).unwrap();
            let refused = live.reload(Trigger::Request).unwrap_err();
            assert!(matches!(&refused, LoadError::Held { rollout } if rollout == "q4"), "{refused}");
        }
    }
    live.expose(latch(true));
    live.reload(Trigger::Request).unwrap();
    assert_eq!(live.in_force().mode(), Mode::Sandboxed);
}

#[test]
fn a_finished_rollout_leaves_its_candidate_in_the_file_with_all_that_people_wrote() {
    let text = FULL.replace("[subnets.one]", "# the canary\n[subnets.one]");
    let rule = |text: &str| Policy::parse("p", text).unwrap().rollouts()[0].clone();
    let finished = rollout::finished(&text, &rule(&text)).unwrap();
    for part in ["# the canary\n[subnets.one]\n", "[subnets.two]\n", "[[guards]]\nname = \"p99\"\n"] {
        assert!(finished.contains(part), "{part} isn't in {finished}");
    }
    assert!(!finished.contains("rollouts"), "{finished}");
    let policy = Policy::parse("p", &finished).unwrap();
    for subnet in ["one", "two"] {
        let scope = Scope { subnet, node: "n1", canister: None };
        let conditions =
            Conditions { at: Timestamp::UNIX_EPOCH, killed: false, exposures: Exposures::none() };
        assert_eq!(policy.decide(&scope, conditions).mode, Mode::Sandboxed, "{subnet}");
    }
    let part = FULL.replace("[\"two\", \"one\"]", "[\"two\"]");
    let refused = rollout::finished(&part, &rule(&part)).unwrap_err();
    assert_eq!(refused, "its last step on subnet one, \"ten-percent\", has not all of it: add one that has");
}
