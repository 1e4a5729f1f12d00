//! What it costs a message to be told its mode.

use std::hint::black_box;

use execution::Principal;
use rollout::{ExposedStep, Exposure, Exposures, LivePolicy};

use super::{Bench, CORE};
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Variant, interleaved};

const ROUNDS: usize = 201;
const CALLS: u32 = 10_000;
/// What it may take at most, nanoseconds (rollout.md section 2.2).
const LIMIT_NANOSECONDS: f64 = 100.0;
/// Canisters with a rule, as many as a policy may have.
const RULES: u64 = 10_000;

/// A step that puts half of the canisters in the candidate's mode, by their buckets.
const ROLLOUT: &str = r#"
[rollouts.r]
candidate = "sandboxed"
control = "in-process"
holdout_ppm = 10_000
[[rollouts.r.steps]]
name = "half"
scope = { subnets = ["s"] }
percent = 50
design = "percent"
bake = "1h"
[[guards]]
name = "crash"
type = "fuse"
event = "sandbox-crash"
max = 3
window = "10m"
"#;

/// A canister's mode under a policy with as many rules as there may be, under one without, and under a step of a
/// rollout that divides canisters.
pub(super) fn resolve(_: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::this_thread(CORE)?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let follow = |name: &str, rules: &str| {
        let path = folder.path().join(name);
        let text = format!("schema = 1\n[default]\nmode = \"in-process\"\n{rules}");
        std::fs::write(&path, text).map_err(|error| error.to_string())?;
        LivePolicy::watch(&path, "s", "n").map_err(|error| error.to_string())
    };
    let id = |number: u64| Principal::from_slice(&[&number.to_be_bytes()[..], &[1, 1]].concat());
    let rules: String = (0..RULES)
        .map(|number| format!("[[canisters]]\nid = \"{}\"\nmode = \"sandboxed\"\n", id(number)))
        .collect();
    let (plain, full) = (follow("plain.toml", "")?, follow("full.toml", &rules)?);
    let divided = follow("divided.toml", ROLLOUT)?;
    let digest = divided.in_force().policy.rollouts()[0].steps[0].digest;
    let half = Exposure { step: Some(ExposedStep { index: 0, digest }), ..Exposure::default() };
    divided.expose(Exposures { rollouts: [("r".to_owned(), half)].into(), nodes: Vec::new() });
    let ids: Vec<Principal> = (0..2 * RULES).map(id).collect();
    let ask = |live: &LivePolicy, next: &mut usize| {
        *next = (*next + 1) % ids.len();
        black_box(live.load().mode_of(black_box(&ids[*next])));
        Ok(())
    };
    let mut next = [0; 6];
    let [one, two, three, four, five, six] = &mut next;
    let (mut plain_one, mut full_one, mut divided_one) =
        (|| ask(&plain, one), || ask(&full, two), || ask(&divided, three));
    let (mut plain_two, mut full_two, mut divided_two) =
        (|| ask(&plain, four), || ask(&full, five), || ask(&divided, six));
    let variants: &mut [Variant<'_>] = &mut [
        &mut plain_one,
        &mut full_one,
        &mut divided_one,
        &mut plain_two,
        &mut full_two,
        &mut divided_two,
    ];
    let samples = interleaved(ROUNDS, CALLS, variants)?;
    let finding = |id: &str, index: usize, what: &str| {
        let measured = samples[index].median();
        let again = samples[index + 3].median();
        Finding::new(
            id,
            &Compared { limit: LIMIT_NANOSECONDS, measured, unit: Unit::Time },
            Target::AtMost(1.0),
            (measured / again - 1.0).abs() < 0.2,
            format!("the mode of a canister under a policy with {what}, against the bound of the design"),
        )
    };
    Ok(vec![
        finding("resolve", 0, "no rules for canisters"),
        finding("resolve-rules", 1, "10,000 of them; half of those asked for have one"),
        finding("resolve-rollout", 2, "a step that divides canisters by their buckets"),
    ])
}
