//! The schema for editors, and a policy as it is shown.

use rollout::{Bounds, Conditions, Policy, Scope, json_schema};
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
            let keys: Vec<_> = table["properties"].as_object().unwrap().keys().cloned().collect();
            keys.into_iter().map(move |key| (header.clone(), key))
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
[kill_switch]
file = \"/etc/bulkhead/KILL\"
mode = \"in-process\"
[switch]
rollback_deadline = \"500ms\"
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
        let name = header.trim_matches(['[', ']']).split('.').next().unwrap().to_owned();
        let section = &json[name.as_str()];
        let table = section.as_array().map_or(section, |list| &list[0]);
        let table =
            if header.contains('.') { table.as_object().unwrap().values().next().unwrap() } else { table };
        assert!(!table[key.as_str()].is_null(), "{header} {key} is missing in FULL");
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

[default]
mode = \"sandboxed\"                       # built in
floor = \"sandboxed\"                      # p.toml:3:9

[subnets.a]
labels = {}                              # p.toml:5:10

[memory]
total = \"1GiB\"                           # built in

[sandbox]
pool = 2                                 # built in
idle = \"5m\"                              # p.toml:7:8
"
    );
    let json = Policy::parse("p.toml", text).unwrap().show_json(&built_in);
    assert_eq!(json["values"][1]["value"], "\"sandboxed\"");
    assert_eq!(json["values"][1]["at"]["line"], 3);
    assert!(json["values"][0]["at"].is_null());
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
                let conditions = Conditions { at, killed: false };
                assert_eq!(shown.decide(&scope, conditions).mode, policy.decide(&scope, conditions).mode);
            }
        }
    }
}
