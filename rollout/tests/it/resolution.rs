//! What applies where.

use execution::Principal;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rollout::{
    Conditions, Decision, Exposures, Floor, Layer, Mode, Policy, Reason, Resolution, Scope, Standing,
};

const POLICY: &str = "schema = 1
[default]
mode = \"in-process\"
[subnets.io67a]
mode = \"shadow\"
[subnets.tdb26]
floor = \"sandboxed\"
[nodes.q3w37]
mode = \"in-process\"
";

const LEDGER: &str = "ryjl3-tyaaa-aaaaa-aaaba-cai";
const REGISTRY: &str = "rwlgt-iiaaa-aaaaa-aaaaa-cai";

fn time(text: &str) -> Timestamp {
    rollout::parse_time(text).unwrap()
}

fn conditions(at: &str) -> Conditions<'static> {
    Conditions { at: time(at), killed: false, exposures: Exposures::none() }
}

/// On a node, for canisters without a rule.
fn resolve(policy: &Policy, subnet: &str, node: &str) -> Resolution {
    policy.resolve(&Scope { subnet, node, canister: None }, conditions("2026-11-27"))
}

fn of_canister(policy: &Policy, id: &str, at: &str) -> Resolution {
    let canister = Some(Principal::from_text(id).unwrap());
    policy.resolve(&Scope { subnet: "s", node: "n", canister }, conditions(at))
}

#[test]
fn the_strongest_layer_that_speaks_decides() {
    let policy = Policy::parse("p.toml", POLICY).unwrap();
    let decided = |subnet, node| {
        let resolution = resolve(&policy, subnet, node);
        (resolution.mode, resolution.reason, resolution.decided_by, resolution.at.unwrap().to_string())
    };
    assert_eq!(decided("x", "y"), (Mode::InProcess, Reason::Default, Layer::Default, "p.toml:3:8".into()));
    assert_eq!(decided("io67a", "y"), (Mode::Shadow, Reason::Subnet, Layer::Subnet, "p.toml:5:8".into()));
    assert_eq!(
        decided("io67a", "q3w37"),
        (Mode::InProcess, Reason::Pinned, Layer::Node, "p.toml:9:8".into())
    );
    assert_eq!(
        decided("tdb26", "q3w37"),
        (Mode::Sandboxed, Reason::Floored, Layer::Subnet, "p.toml:7:9".into())
    );
}

#[test]
fn an_explanation_shows_winners_and_losers_with_their_places() {
    let policy = Policy::parse("p.toml", POLICY).unwrap();
    assert_eq!(
        resolve(&policy, "io67a", "q3w37").to_string(),
        "in effect: IN-PROCESS   reason PINNED
decided by node at p.toml:9:8
  kill      no kill switch
→ node      in-process   p.toml:9:8
  subnet    shadow       p.toml:5:8   (overridden by node)
  default   in-process   p.toml:3:8   (overridden by node)
  floor     none         (built in)"
    );
    assert_eq!(
        resolve(&policy, "tdb26", "y").to_string(),
        "in effect: SANDBOXED   reason FLOORED
decided by the floor of subnet at p.toml:7:9
  kill      no kill switch
  node      no pin
  subnet    says no mode
  default   in-process   p.toml:3:8   (below the floor of subnet)
  floor     sandboxed    p.toml:7:9"
    );
}

const EVERY_LAYER: &str = "schema = 1
[kill_switch]
file = \"/nowhere/KILL\"
mode = \"in-process\"
[default]
mode = \"sandboxed\"
floor = \"sandboxed\"
[subnets.s]
mode = \"sandboxed\"
labels = { tier = \"app\" }
[[canisters]]
id = \"ryjl3-tyaaa-aaaaa-aaaba-cai\"
mode = \"sandboxed\"
[[exemptions]]
id = \"ryjl3-tyaaa-aaaaa-aaaba-cai\"
mode = \"in-process\"
expires = 2026-12-01T00:00:00Z
reason = \"INC-482\"
approved_by = [\"alice\", \"bob\"]
";

#[test]
fn an_explanation_for_a_canister_shows_every_layer() {
    let policy = Policy::parse("p.toml", EVERY_LAYER).unwrap();
    assert_eq!(
        of_canister(&policy, LEDGER, "2026-11-27").to_string(),
        "in effect: IN-PROCESS   reason EXEMPTED
decided by exemption at p.toml:16:8
  kill      in-process   p.toml:4:8   (not engaged)   file /nowhere/KILL
  node      no pin
→ exemption in-process   p.toml:16:8   until 2026-12-01T00:00:00Z   INC-482   approved by alice, bob
  canister  sandboxed    p.toml:13:8   (overridden by exemption)
  subnet    sandboxed    p.toml:9:8   (overridden by exemption)   labels tier=app
  default   sandboxed    p.toml:6:8   (overridden by exemption)
  floor     sandboxed    p.toml:7:9   (broken by exemption)"
    );
    let killed = Conditions { at: time("2026-11-27"), killed: true, exposures: Exposures::none() };
    let killed = policy.resolve(&Scope { subnet: "s", node: "n", canister: None }, killed);
    assert_eq!(
        killed.to_string(),
        "in effect: IN-PROCESS   reason KILLED
decided by kill at p.toml:4:8
→ kill      in-process   p.toml:4:8   file /nowhere/KILL
  node      no pin
  subnet    sandboxed    p.toml:9:8   (overridden by kill)   labels tier=app
  default   sandboxed    p.toml:6:8   (overridden by kill)
  floor     sandboxed    p.toml:7:9   (broken by kill)"
    );
}

#[test]
fn an_exemption_ends_at_its_second_and_what_it_covered_is_there_again() {
    let policy = Policy::parse("p.toml", EVERY_LAYER).unwrap();
    let mode = |id, at| of_canister(&policy, id, at).mode;
    assert_eq!(mode(LEDGER, "2026-11-30T23:59:59Z"), Mode::InProcess);
    assert_eq!(mode(LEDGER, "2026-12-01T00:00:00Z"), Mode::Sandboxed);
    // A clock that was set back: what the file says of that time holds.
    assert_eq!(mode(LEDGER, "2020-01-01"), Mode::InProcess);
    assert_eq!(mode(REGISTRY, "2026-11-27"), Mode::Sandboxed);
    let expired = of_canister(&policy, LEDGER, "2026-12-01").to_string();
    assert!(
        expired.contains("canister  sandboxed    p.toml:13:8   (not needed: subnet says as much)"),
        "{expired}"
    );
    assert!(
        expired.contains("exemption in-process   p.toml:16:8   (expired)   until 2026-12-01T00:00:00Z"),
        "{expired}"
    );
}

#[test]
fn a_pin_and_a_subnets_mode_expire_and_its_floor_does_not() {
    let text = "schema = 1
[subnets.s]
mode = \"sandboxed\"
floor = \"sandboxed\"
expires = 2026-12-01
[nodes.n]
mode = \"in-process\"
expires = 2026-11-28T12:00:00+02:00
reason = \"kernel 5.10\"
[subnets.t]
mode = \"shadow\"
expires = 2026-12-01
";
    let policy = Policy::parse("p.toml", text).unwrap();
    let at = |subnet, node, at| {
        let decision = policy.decide(&Scope { subnet, node, canister: None }, conditions(at));
        (decision.mode, decision.reason)
    };
    assert_eq!(at("t", "n", "2026-11-28T09:59:59Z"), (Mode::InProcess, Reason::Pinned));
    assert_eq!(at("t", "n", "2026-11-28T10:00:00Z"), (Mode::Shadow, Reason::Subnet));
    assert_eq!(at("t", "n", "2026-12-01"), (Mode::InProcess, Reason::Default));
    assert_eq!(at("s", "n", "2026-11-28T09:59:59Z"), (Mode::Sandboxed, Reason::Floored));
    assert_eq!(at("s", "n", "2027-12-01"), (Mode::Sandboxed, Reason::Floored));
}

#[test]
fn a_rule_for_a_canister_strengthens_and_a_pin_is_stronger() {
    let text = |pin: &str| {
        format!(
            "schema = 1\n[default]\nmode = \"shadow\"\n{pin}[[canisters]]\nid = \"{LEDGER}\"\nmode = \"sandboxed\"\n[[canisters]]\nid = \"{REGISTRY}\"\nmode = \"shadow\"\nexpires = 2026-12-01\n"
        )
    };
    let policy = Policy::parse("p.toml", &text("")).unwrap();
    let reason = |policy: &Policy, id| {
        let resolution = of_canister(policy, id, "2026-11-27");
        (resolution.mode, resolution.reason)
    };
    assert_eq!(reason(&policy, LEDGER), (Mode::Sandboxed, Reason::Canister));
    assert_eq!(reason(&policy, REGISTRY), (Mode::Shadow, Reason::Default));
    let pinned = Policy::parse("p.toml", &text("[nodes.n]\nmode = \"in-process\"\n")).unwrap();
    assert_eq!(reason(&pinned, LEDGER), (Mode::InProcess, Reason::Pinned));
}

#[test]
fn what_an_operator_should_know_is_said_with_its_place() {
    let text = format!(
        "{}[meta]\nowner = \"team-execution\"\nreview_by = 2026-12-01\n[nodes.n]\nmode = \"sandboxed\"\nexpires = 2026-12-02\n",
        EVERY_LAYER
    );
    let policy = Policy::parse("p.toml", &text).unwrap();
    let notices = |at| policy.notices(time(at)).iter().map(ToString::to_string).collect::<Vec<_>>();
    let kill = "p.toml:4:8: the kill switch goes below the floor: while /nowhere/KILL is there, everything runs in-process";
    assert_eq!(
        notices("2026-11-27"),
        [
            kill,
            "p.toml:14:1: canister ryjl3-tyaaa-aaaaa-aaaba-cai may run in-process, whatever the floor, until 2026-12-01T00:00:00Z: INC-482 (approved by alice, bob)"
        ]
    );
    assert_eq!(
        notices("2026-12-05"),
        [
            kill,
            "p.toml:17:11: the exemption of canister ryjl3-tyaaa-aaaaa-aaaba-cai has expired at 2026-12-01T00:00:00Z and says no mode",
            "p.toml:22:13: the file is stale: its review was due by 2026-12-01T00:00:00Z, which is up to team-execution",
            "p.toml:25:11: [nodes.n] has expired at 2026-12-02T00:00:00Z and says no mode",
        ]
    );
}

#[test]
fn an_explanation_is_data_too() {
    let json = resolve(&Policy::parse("p.toml", POLICY).unwrap(), "io67a", "n").to_json();
    assert_eq!(json["mode"], "shadow");
    assert_eq!(json["decided_by"], "subnet");
    assert_eq!(json["at"]["line"], 5);
    assert_eq!(json["layers"][3]["standing"], "overridden");
    assert_eq!(json["layers"][3]["by"], "subnet");
    let json = of_canister(&Policy::parse("p.toml", EVERY_LAYER).unwrap(), LEDGER, "2026-11-27").to_json();
    assert_eq!(json["layers"][2]["approved_by"], serde_json::json!(["alice", "bob"]));
    assert_eq!(json["layers"][2]["expires"], "2026-12-01T00:00:00Z");
    assert_eq!(json["layers"][0]["standing"], "not-engaged");
}

#[test]
fn a_silent_policy_means_in_process() {
    let resolution = resolve(&Policy::parse("p.toml", "schema = 1\n").unwrap(), "s", "n");
    assert_eq!((resolution.mode, resolution.floor, resolution.at), (Mode::InProcess, Floor::None, None));
}

/// When rules of the generated policies end, where they do.
const TURN: &str = "2026-12-01T00:00:00Z";

/// What a generated policy says.
#[derive(Clone, Debug)]
struct Layers {
    kill: Mode,
    default: (Option<Mode>, Option<Floor>),
    subnet: (Option<Mode>, Option<Floor>, bool),
    node: Option<(Mode, bool)>,
    canister: Option<(Mode, bool)>,
    exemption: Option<Mode>,
}

fn layers() -> impl Strategy<Value = Layers> {
    let of = |modes: &[Mode]| proptest::sample::select(modes.to_vec());
    let mode = || proptest::option::of(of(&Mode::ALL));
    let floor = || proptest::option::of(proptest::sample::select(Floor::ALL.to_vec()));
    let node = proptest::option::of((of(&Mode::ALL), any::<bool>()));
    let canister = proptest::option::of((of(&[Mode::Shadow, Mode::Sandboxed]), any::<bool>()));
    let exemption = proptest::option::of(of(&[Mode::InProcess, Mode::Shadow]));
    let subnet = (mode(), floor(), any::<bool>());
    (of(&Mode::ALL), (mode(), floor()), subnet, node, canister, exemption).prop_map(
        |(kill, default, subnet, node, canister, exemption)| Layers {
            kill,
            default,
            subnet,
            node,
            canister,
            exemption,
        },
    )
}

fn text(layers: &Layers) -> String {
    let mode = |mode: Option<Mode>| mode.map(|mode| format!("mode = \"{mode}\"\n")).unwrap_or_default();
    let floor =
        |floor: Option<Floor>| floor.map(|floor| format!("floor = \"{floor}\"\n")).unwrap_or_default();
    let expires = |does: bool| if does { format!("expires = {TURN}\n") } else { String::new() };
    let mut text =
        format!("schema = 1\n[kill_switch]\nfile = \"/KILL\"\nmode = \"{}\"\n[default]\n", layers.kill);
    text += &(mode(layers.default.0) + &floor(layers.default.1));
    text += &format!("[subnets.s]\n{}{}", mode(layers.subnet.0), floor(layers.subnet.1));
    text += &expires(layers.subnet.2 && layers.subnet.0.is_some());
    if let Some((pin, ends)) = layers.node {
        text += &format!("[nodes.n]\nmode = \"{pin}\"\n{}", expires(ends));
    }
    if let Some((rule, ends)) = layers.canister {
        text += &format!("[[canisters]]\nid = \"{LEDGER}\"\nmode = \"{rule}\"\n{}", expires(ends));
    }
    if let Some(exempt) = layers.exemption {
        text += &format!(
            "[[exemptions]]\nid = \"{LEDGER}\"\nmode = \"{exempt}\"\nexpires = {TURN}\nreason = \"r\"\napproved_by = [\"a\"]\n"
        );
    }
    text
}

/// The rules for a file, said another way.
fn is_contradictory(layers: &Layers) -> bool {
    let default_floor = layers.default.1 == Some(Floor::Sandboxed);
    let subnet_floor = layers.subnet.1 == Some(Floor::Sandboxed);
    let weak = |mode: Option<Mode>| mode.is_some_and(|mode| mode != Mode::Sandboxed);
    let pin = layers.node.map(|(mode, _)| mode);
    let canister = layers.canister.map(|(mode, _)| mode);
    let speaks_weakly = [layers.default.0, layers.subnet.0, pin, canister].into_iter().any(weak);
    (default_floor && (speaks_weakly || layers.subnet.1 == Some(Floor::None)))
        || (subnet_floor && weak(layers.subnet.0))
}

/// The mode of the canister, said another way: `late` after the turn.
fn reference(layers: &Layers, late: bool, killed: bool) -> Mode {
    if killed {
        return layers.kill;
    }
    let live = |rule: Option<(Mode, bool)>| rule.filter(|(_, ends)| !(late && *ends)).map(|(mode, _)| mode);
    let exempt = layers.exemption.filter(|_| !late);
    let subnet = live(layers.subnet.0.map(|mode| (mode, layers.subnet.2)));
    let base = subnet.or(layers.default.0).unwrap_or(Mode::InProcess);
    let strengthened = base.max(live(layers.canister).unwrap_or(Mode::InProcess));
    let weakened = strengthened.min(exempt.unwrap_or(Mode::Sandboxed));
    let wanted = live(layers.node).unwrap_or(weakened);
    let floored = [layers.default.1, layers.subnet.1].contains(&Some(Floor::Sandboxed));
    let floor = if floored { exempt.unwrap_or(Mode::Sandboxed) } else { Mode::InProcess };
    wanted.max(floor)
}

proptest! {
    #[test]
    fn resolution_equals_the_reference(layers in layers(), seconds in -2_i64..3, killed: bool) {
        let at = time(TURN) + SignedDuration::from_secs(seconds);
        let parsed = Policy::parse("p", &text(&layers));
        prop_assert_eq!(parsed.is_err(), is_contradictory(&layers), "{:?}", parsed.err());
        if let Ok(policy) = Policy::parse("p", &text(&layers)) {
            let canister = Some(Principal::from_text(LEDGER).unwrap());
            let scope = Scope { subnet: "s", node: "n", canister };
            let conditions = Conditions { at, killed, exposures: Exposures::none() };
            let resolution = policy.resolve(&scope, conditions);
            prop_assert_eq!(resolution.mode, reference(&layers, seconds >= 0, killed), "{}", resolution);
            let Decision { mode, reason, decided_by, on_trial } = policy.decide(&scope, conditions);
            prop_assert!(!on_trial, "without a rollout");
            prop_assert_eq!((mode, reason, decided_by), (resolution.mode, resolution.reason, resolution.decided_by));
            let won = resolution.layers.iter().filter(|said| said.standing == Standing::Won).count();
            prop_assert_eq!(won, usize::from(resolution.reason != Reason::Floored), "{}", resolution);
        }
    }

    #[test]
    fn a_floor_is_broken_by_the_kill_switch_or_a_live_exemption_alone(layers in layers(), late: bool, killed: bool) {
        if let Ok(policy) = Policy::parse("p", &text(&layers)) {
            let at = time(if late { "2026-12-02" } else { "2026-11-27" });
            for canister in [None, Some(Principal::from_text(LEDGER).unwrap()), Some(Principal::from_slice(&[1]))] {
                let scope = Scope { subnet: "s", node: "n", canister };
                let resolution = policy.resolve(&scope, Conditions { at, killed, exposures: Exposures::none() });
                let exempt = !late && layers.exemption.is_some() && canister == Principal::from_text(LEDGER).ok();
                prop_assert!(resolution.floor.allows(resolution.mode) || killed || exempt, "{}", resolution);
            }
        }
    }

    #[test]
    fn a_rule_for_a_canister_never_weakens(layers in layers(), late: bool) {
        let without = Layers { canister: None, ..layers.clone() };
        if let (Ok(with), Ok(without)) = (Policy::parse("p", &text(&layers)), Policy::parse("p", &text(&without))) {
            let canister = Some(Principal::from_text(LEDGER).unwrap());
            let scope = Scope { subnet: "s", node: "n", canister };
            let conditions = conditions(if late { "2026-12-02" } else { "2026-11-27" });
            prop_assert!(with.decide(&scope, conditions).mode >= without.decide(&scope, conditions).mode);
        }
    }
}
