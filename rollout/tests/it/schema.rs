//! The schema for editors, and a policy as it is shown.

use rollout::{Bounds, Conditions, Exposures, Policy, Scope, json_schema};
use serde_json::{Value, json};

/// Every key of the schema, with the header of a table that it stands in.
pub(crate) fn keys() -> Vec<(String, String)> {
    let schema = json_schema();
    let sections = schema["properties"].as_object().unwrap().iter().filter(|(name, _)| *name != "schema");
    sections
        .flat_map(|(name, section)| {
            let (header, table) = match section["type"].as_str().unwrap() {
                "array" => (format!("[[{name}]]"), &section["items"]),
                _ if section["properties"].is_object() => (format!("[{name}]"), section),
                _ => (format!("[{name}.a]"), &section["additionalProperties"]),
            };
            let properties = table["properties"].as_object().unwrap();
            let own = properties.keys().map(|key| (header.clone(), key.clone()));
            let within = properties.iter().flat_map(|(key, inner)| {
                let keys =
                    inner["items"]["properties"].as_object().into_iter().flat_map(|inner| inner.keys());
                let header = format!("[[{}.{key}]]", header.trim_matches(['[', ']']));
                keys.map(move |key| (header.clone(), key.clone()))
            });
            own.chain(within).collect::<Vec<_>>()
        })
        .collect()
}

/// A policy file as an editor sees it.
fn as_json(text: &str) -> Value {
    fn convert(value: toml::Value) -> Value {
        match value {
            toml::Value::String(text) => text.into(),
            toml::Value::Integer(number) => number.into(),
            toml::Value::Float(number) => number.into(),
            toml::Value::Boolean(flag) => flag.into(),
            toml::Value::Datetime(time) => time.to_string().into(),
            toml::Value::Array(values) => values.into_iter().map(convert).collect(),
            toml::Value::Table(table) => {
                Value::Object(table.into_iter().map(|(key, value)| (key, convert(value))).collect())
            }
        }
    }
    convert(toml::Value::Table(text.parse().unwrap()))
}

/// Every key once.
const FULL: &str = "schema = 1
[meta]
owner = \"team-execution@example.org\"
review_by = 2027-03-01
reason_required = true
[kill_switch]
file = \"/etc/bulkhead/KILL\"
mode = \"in-process\"
[switch]
rollback_deadline = \"500ms\"
drain_timeout = \"30s\"
[default]
mode = \"sandboxed\"
floor = \"none\"
[subnets.io67a]
mode = \"sandboxed\"
floor = \"sandboxed\"
labels = { tier = \"canary\" }
reason = \"first of all\"
expires = 2027-01-01T12:00:00+01:00
[nodes.q3w37]
mode = \"in-process\"
reason = \"kernel 5.10, no \\\"landlock\\\"\"
expires = 2026-12-15T00:00:00Z
[[canisters]]
id = \"rrkah-fqaaa-aaaaa-aaaaq-cai\"
mode = \"sandboxed\"
reason = \"handles keys\"
expires = 2028-01-01
[[exemptions]]
id = \"ryjl3-tyaaa-aaaaa-aaaba-cai\"
mode = \"in-process\"
expires = 2026-12-01T00:00:00Z
reason = \"INC-482\"
approved_by = [\"alice\", \"bob\"]
[rollouts.q4]
candidate = \"sandboxed\"
control = \"in-process\"
salt = \"sandbox-2026q4\"
hash = \"sip13-ppm-v1\"
holdout_ppm = 10000
on_failure = \"rollback-all\"
retry_cooldown = \"1h\"
hold_at_step = 1
[[rollouts.q4.steps]]
name = \"shadow\"
scope = { subnets = [\"io67a\"] }
mode = \"shadow\"
bake = \"1h\"
require = { min_comparisons = 1000 }
[[rollouts.q4.steps]]
name = \"one-node\"
scope = { label = \"tier=canary\", nodes_per_subnet = 1 }
bake = \"1h\"
max_bake = \"2h\"
[[rollouts.q4.steps]]
name = \"half\"
scope = { subnets = [\"io67a\"] }
percent = 50.25
design = \"switchback\"
bake = \"1h\"
[[guards]]
name = \"p99\"
type = \"latency-ratio\"
quantile = 0.99
limit = 1.5
kinds = [\"update\"]
on_fail = \"observe\"
[[guards]]
name = \"traps\"
type = \"rate-ratio\"
event = \"trap\"
limit = 2
allowance = 3
[[guards]]
name = \"crash\"
type = \"fuse\"
event = \"sandbox-crash\"
max = 3
window = \"10m\"
[guard_defaults]
looks = \"5m\"
[measure]
interval = \"10s\"
block = \"60s\"
warmup_discard = \"120s\"
[shadow]
sample_ppm = 20_000
max_cpu_share = 0.25
deadline_factor = 2.5
deadline_min = \"1s\"
records_max = 100
[memory]
total = \"64GiB\"
canister = \"16GiB\"
[sandbox]
workers_max = 2000
worker_memory = \"12GiB\"
pool = 2
query_workers = 1
idle = \"300s\"
step_patience = \"10s\"
instructions_per_second_min = 50_000_000
private_images = false
[in_process]
instances_max = 512
code_max = 1024
[code_cache]
directory = \"/var/cache/bulkhead\"
size = \"4GiB\"
modules_max = 10_000
";

#[test]
fn the_schema_has_no_key_that_the_reader_refuses() {
    Policy::parse("p.toml", FULL).unwrap();
    let json = as_json(FULL);
    for (header, key) in keys() {
        let mut path = header.trim_matches(['[', ']']).split('.');
        let section = &json[path.next().unwrap()];
        // Of an id, the first one; of an array, any.
        let table = path.next().map_or(section, |_| section.as_object().unwrap().values().next().unwrap());
        let table = path.next().map_or(table, |list| &table[list]);
        let one = [table.clone()];
        let tables = table.as_array().map_or(&one[..], Vec::as_slice);
        let has = tables.iter().any(|table| !table[key.as_str()].is_null());
        assert!(has, "{header} {key} is missing in FULL");
    }
}

#[test]
fn the_schema_says_of_each_kind_of_table_what_the_reader_does() {
    let schema = json_schema();
    assert_eq!(schema["required"], json!(["schema"]));
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(
        schema["properties"]["default"],
        json!({
            "type": "object",
            "description": "what applies where nothing else speaks",
            "additionalProperties": false,
            "required": [],
            "properties": {
                "mode": {
                    "enum": ["in-process", "sandboxed", "shadow"],
                    "description": "where canisters run (in-process, sandboxed or shadow)",
                },
                "floor": {
                    "enum": ["none", "sandboxed"],
                    "description": "the weakest mode that may be in force (none or sandboxed)",
                },
            },
        })
    );
    let canisters = &schema["properties"]["canisters"];
    assert_eq!(canisters["type"], "array");
    assert_eq!(canisters["items"]["required"], json!(["id", "mode"]));
    assert_eq!(canisters["items"]["properties"]["mode"]["enum"], json!(["sandboxed", "shadow"]));
    let nodes = &schema["properties"]["nodes"];
    assert_eq!(nodes["propertyNames"]["pattern"], "^[A-Za-z0-9_-]{1,63}$");
    assert_eq!(nodes["additionalProperties"]["additionalProperties"], false);
    let sandbox = &schema["properties"]["sandbox"]["properties"];
    assert_eq!((&sandbox["pool"]["minimum"], &sandbox["pool"]["maximum"]), (&json!(0), &json!(1000)));
    assert_eq!(sandbox["idle"]["pattern"], "^\\d+(ms|s|m|h|d)$");
    assert_eq!(sandbox["private_images"]["type"], "boolean");
}

#[test]
fn the_reader_asks_for_what_the_schema_requires() {
    let sections = json_schema()["properties"].clone();
    for (name, section) in sections.as_object().unwrap() {
        let (header, table) = match section["type"].as_str() {
            Some("array") => (format!("[[{name}]]"), &section["items"]),
            _ => (format!("[{name}]"), section),
        };
        for key in table["required"].as_array().into_iter().flatten() {
            let errors = Policy::parse("p.toml", &format!("schema = 1\n{header}\n")).unwrap_err();
            let message = format!("{header} has no `{}`", key.as_str().unwrap());
            assert!(errors.iter().any(|error| error.message == message), "{message}: {errors:?}");
        }
    }
}

#[test]
fn a_policy_is_shown_with_what_holds_and_where_it_came_from() {
    let text =
        "schema = 1\n[default]\nfloor = \"sandboxed\"\n[subnets.a]\nlabels = {}\n[sandbox]\nidle = \"5m\"\n";
    let built_in =
        Bounds { idle_ms: Some(1), pool: Some(2), memory_bytes: Some(1 << 30), ..Bounds::default() };
    assert_eq!(
        Policy::parse("p.toml", text).unwrap().show(&built_in),
        "schema = 1

[switch]
rollback_deadline = \"500ms\"              # built in
drain_timeout = \"30s\"                    # built in

[default]
mode = \"sandboxed\"                       # built in
floor = \"sandboxed\"                      # p.toml:3:9

[subnets.a]
labels = {}                              # p.toml:5:10

[guard_defaults]
looks = \"5m\"                             # built in

[measure]
interval = \"10s\"                         # built in
block = \"1m\"                             # built in
warmup_discard = \"2m\"                    # built in

[shadow]
sample_ppm = 1000000                     # built in
max_cpu_share = 0.1                      # built in
deadline_factor = 5                      # built in
deadline_min = \"2s\"                      # built in
records_max = 1000                       # built in

[memory]
total = \"1GiB\"                           # built in

[sandbox]
pool = 2                                 # built in
idle = \"5m\"                              # p.toml:7:8
"
    );
    let json = Policy::parse("p.toml", text).unwrap().show_json(&built_in);
    assert_eq!(json["values"][3]["value"], "\"sandboxed\"");
    assert_eq!(json["values"][3]["at"]["line"], 3);
    assert!(json["values"][2]["at"].is_null());
}

#[test]
fn what_is_shown_is_a_policy_that_says_the_same() {
    let at = rollout::parse_time("2026-11-27").unwrap();
    for text in ["schema = 1\n", FULL] {
        let policy = Policy::parse("p.toml", text).unwrap();
        let shown = Policy::parse("shown.toml", &policy.show(&Bounds::default())).unwrap();
        assert_eq!(shown.bounds(), policy.bounds());
        let changes = policy.changes(&shown);
        assert!(changes.iter().all(|change| change.from.is_none()), "{changes:?}");
        for (subnet, node) in [("io67a", "n"), ("s", "q3w37"), ("s", "n")] {
            for canister in policy.canisters().copied().map(Some).chain([None]) {
                let scope = Scope { subnet, node, canister };
                let conditions = Conditions { at, killed: false, exposures: Exposures::none() };
                assert_eq!(shown.decide(&scope, conditions).mode, policy.decide(&scope, conditions).mode);
            }
        }
    }
}
