//! What applies where.

use proptest::prelude::*;
use rollout::{Floor, Layer, Mode, Policy, Reason, Standing};

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

#[test]
fn the_strongest_layer_that_speaks_decides() {
    let policy = Policy::parse("p.toml", POLICY).unwrap();
    let decided = |subnet, node| {
        let resolution = policy.resolve(subnet, node);
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
        policy.resolve("io67a", "q3w37").to_string(),
        "in effect: IN-PROCESS   reason PINNED
decided by node at p.toml:9:8
→ node      in-process   p.toml:9:8
  subnet    shadow       p.toml:5:8   (overridden by node)
  default   in-process   p.toml:3:8   (overridden by node)
  floor     none         (built in)"
    );
    assert_eq!(
        policy.resolve("tdb26", "y").to_string(),
        "in effect: SANDBOXED   reason FLOORED
decided by the floor of subnet at p.toml:7:9
  node      says no mode
  subnet    says no mode
  default   in-process   p.toml:3:8   (below the floor of subnet)
  floor     sandboxed    p.toml:7:9"
    );
}

#[test]
fn an_explanation_is_data_too() {
    let json = Policy::parse("p.toml", POLICY).unwrap().resolve("io67a", "n").to_json();
    assert_eq!(json["mode"], "shadow");
    assert_eq!(json["decided_by"], "subnet");
    assert_eq!(json["at"]["line"], 5);
    assert_eq!(json["layers"][2]["standing"], "overridden");
    assert_eq!(json["layers"][2]["by"], "subnet");
}

#[test]
fn a_silent_policy_means_in_process() {
    let resolution = Policy::parse("p.toml", "schema = 1\n").unwrap().resolve("s", "n");
    assert_eq!((resolution.mode, resolution.floor, resolution.at), (Mode::InProcess, Floor::None, None));
}

#[derive(Clone, Debug)]
struct Layers {
    default: (Option<Mode>, Option<Floor>),
    subnet: (Option<Mode>, Option<Floor>),
    node: Option<Mode>,
}

fn layers() -> impl Strategy<Value = Layers> {
    let mode = || proptest::option::of(proptest::sample::select(Mode::ALL.to_vec()));
    let floor = || proptest::option::of(proptest::sample::select(Floor::ALL.to_vec()));
    ((mode(), floor()), (mode(), floor()), mode()).prop_map(|(default, subnet, node)| Layers {
        default,
        subnet,
        node,
    })
}

fn text(layers: &Layers) -> String {
    let mode = |mode: Option<Mode>| mode.map(|mode| format!("mode = \"{mode}\"\n")).unwrap_or_default();
    let floor =
        |floor: Option<Floor>| floor.map(|floor| format!("floor = \"{floor}\"\n")).unwrap_or_default();
    format!(
        "schema = 1\n[default]\n{}{}[subnets.s]\n{}{}[nodes.n]\n{}",
        mode(layers.default.0),
        floor(layers.default.1),
        mode(layers.subnet.0),
        floor(layers.subnet.1),
        mode(layers.node)
    )
}

/// The rules, said another way: `None` where the file must be refused.
fn reference(layers: &Layers) -> Option<Mode> {
    let default_floor = layers.default.1 == Some(Floor::Sandboxed);
    let subnet_floor = layers.subnet.1 == Some(Floor::Sandboxed);
    let weak = |mode: Option<Mode>| mode.is_some_and(|mode| mode != Mode::Sandboxed);
    let speaks_weakly = weak(layers.default.0) || weak(layers.subnet.0) || weak(layers.node);
    let below_default = default_floor && (speaks_weakly || layers.subnet.1 == Some(Floor::None));
    let refused = below_default || (subnet_floor && weak(layers.subnet.0));
    if refused {
        return None;
    }
    if default_floor || subnet_floor {
        return Some(Mode::Sandboxed);
    }
    Some(layers.node.or(layers.subnet.0).or(layers.default.0).unwrap_or(Mode::InProcess))
}

proptest! {
    #[test]
    fn resolution_equals_the_reference(layers in layers()) {
        let resolved = Policy::parse("p", &text(&layers)).ok().map(|policy| policy.resolve("s", "n"));
        prop_assert_eq!(resolved.as_ref().map(|resolution| resolution.mode), reference(&layers));
        if let Some(resolution) = resolved {
            prop_assert!(resolution.floor.allows(resolution.mode));
            let won = resolution.layers.iter().filter(|said| said.standing == Standing::Won).count();
            prop_assert_eq!(won, usize::from(resolution.reason != Reason::Floored));
        }
    }
}
