//! Every error of a policy file, with its exact text.

use rollout::{Bounds, ENTRIES_MAX, FILE_BYTES_MAX, Policy};

/// The diagnostics of a file that must be refused, as printed.
#[track_caller]
fn refused(text: &str) -> String {
    let errors = Policy::parse("p.toml", text).expect_err("must be refused");
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_unknown_mode_is_shown_with_a_suggestion() {
    assert_eq!(
        refused("schema = 1\n[default]\nmode = \"sandboxd\"\n"),
        "error: unknown mode `sandboxd`
 --> p.toml:3:8
3 | mode = \"sandboxd\"
  |        ^^^^^^^^^^ expected in-process, sandboxed or shadow; did you mean `sandboxed`?"
    );
}

#[test]
fn an_unknown_floor_is_refused() {
    assert_eq!(
        refused("schema = 1\n[subnets.a]\n  floor = \"low\"\n"),
        "error: unknown floor `low`
 --> p.toml:3:11
3 |   floor = \"low\"
  |           ^^^^^ expected none or sandboxed"
    );
}

#[test]
fn a_file_that_is_not_toml_is_refused_where_it_breaks() {
    assert_eq!(
        refused("schema = 1\n[default\nmode = \"shadow\"\n"),
        "error: not TOML: unclosed table, expected `]`
 --> p.toml:2:9
2 | [default
  |         ^"
    );
}

#[test]
fn a_missing_schema_is_refused() {
    assert_eq!(
        refused("[default]\nmode = \"shadow\"\n"),
        "error: missing key `schema`
 --> p.toml:1:1
1 | [default]
  | ^ expected `schema = 1` at the head of the file"
    );
}

#[test]
fn an_empty_file_is_refused() {
    assert_eq!(
        refused(""),
        "error: missing key `schema`
 --> p.toml:1:1
1 | 
  | ^ expected `schema = 1` at the head of the file"
    );
}

#[test]
fn another_schema_is_refused() {
    assert_eq!(
        refused("schema = 12\n"),
        "error: unknown schema `12`
 --> p.toml:1:10
1 | schema = 12
  |          ^^ this version reads schema 1"
    );
    assert!(refused("schema = \"1\"\n").starts_with("error: `schema` is a string\n --> p.toml:1:10\n"));
}

#[test]
fn an_unknown_key_is_refused_at_every_level() {
    assert_eq!(
        refused("schema = 1\ndefalt = 3\n[default]\nmod = 1\n[subnets.a]\nflor = 1\n[nodes.b]\nmoode = 1\n"),
        "error: unknown key `defalt`
 --> p.toml:2:1
2 | defalt = 3
  | ^^^^^^ expected schema, meta, kill_switch, switch, default, subnets, nodes, canisters, exemptions, rollouts, guards, guard_defaults, measure, shadow, memory, sandbox, in_process or code_cache; did you mean `default`?
error: unknown key `mod` in [default]
 --> p.toml:4:1
4 | mod = 1
  | ^^^ expected mode or floor; did you mean `mode`?
error: unknown key `flor` in [subnets.a]
 --> p.toml:6:1
6 | flor = 1
  | ^^^^ expected mode, floor, labels, reason or expires; did you mean `floor`?
error: unknown key `moode` in [nodes.b]
 --> p.toml:8:1
8 | moode = 1
  | ^^^^^ expected mode, reason or expires; did you mean `mode`?"
    );
}

#[test]
fn a_key_of_the_full_schema_is_refused_by_name() {
    assert_eq!(
        refused("schema = 1\n[nodes.a]\nlabels = { tier = \"app\" }\n[store]\nkind = \"file\"\n"),
        "error: `labels` in [nodes.a] is not supported yet in this version
 --> p.toml:3:1
3 | labels = { tier = \"app\" }
  | ^^^^^^ remove it
error: `store` is not supported yet in this version
 --> p.toml:4:2
4 | [store]
  |  ^^^^^ remove it"
    );
}

#[test]
fn a_wrong_type_is_named() {
    assert_eq!(
        refused("schema = 1\nnodes = 7\n[default]\nmode = true\n[subnets]\nx = 1\n"),
        "error: `nodes` is an integer
 --> p.toml:2:9
2 | nodes = 7
  |         ^ expected tables: [nodes.ID]
error: `mode` is a boolean
 --> p.toml:4:8
4 | mode = true
  |        ^^^^ expected a string: in-process, sandboxed or shadow
error: [subnets.x] is an integer
 --> p.toml:6:5
6 | x = 1
  |     ^ expected a table"
    );
}

#[test]
fn a_subnet_that_is_defined_twice_names_the_first() {
    let text = "schema = 1\n[subnets.io67a]\nmode = \"shadow\"\n\n[subnets.io67a]\nmode = \"sandboxed\"\n[nodes.n]\nmod = 1\n";
    assert_eq!(
        refused(text),
        "error: subnet `io67a` is defined twice
 --> p.toml:5:10
5 | [subnets.io67a]
  |          ^^^^^ merge it into the first one
  = note: first defined at p.toml:2:10
error: unknown key `mod` in [nodes.n]
 --> p.toml:8:1
8 | mod = 1
  | ^^^ expected mode, reason or expires; did you mean `mode`?"
    );
}

#[test]
fn a_key_that_is_defined_twice_names_the_first() {
    assert_eq!(
        refused("schema = 1\n[default]\nmode = \"shadow\"\nmode = \"shadow\"\n"),
        "error: `mode` is defined twice
 --> p.toml:4:1
4 | mode = \"shadow\"
  | ^^^^ remove one of the two
  = note: first defined at p.toml:3:1"
    );
}

#[test]
fn a_mode_below_its_own_floor_is_refused() {
    assert_eq!(
        refused("schema = 1\n[subnets.a]\nmode = \"shadow\"\nfloor = \"sandboxed\"\n"),
        "error: [subnets.a] sets mode `shadow` below its own floor `sandboxed`
 --> p.toml:3:8
3 | mode = \"shadow\"
  |        ^^^^^^^^ expected `sandboxed`, or a lower floor
  = note: the floor is set at p.toml:4:9"
    );
    assert!(
        refused("schema = 1\n[default]\nmode = \"in-process\"\nfloor = \"sandboxed\"\n")
            .contains("its own floor")
    );
}

#[test]
fn a_layer_that_weakens_the_default_floor_is_refused() {
    let text = "schema = 1\n[default]\nfloor = \"sandboxed\"\n[subnets.a]\nmode = \"shadow\"\n[subnets.b]\nfloor = \"none\"\n[nodes.c]\nmode = \"in-process\"\n";
    assert_eq!(
        refused(text),
        "error: [subnets.a] sets mode `shadow` below the floor `sandboxed` of [default]
 --> p.toml:5:8
5 | mode = \"shadow\"
  |        ^^^^^^^^ expected `sandboxed`, or a lower floor
  = note: the floor is set at p.toml:3:9
error: [subnets.b] sets floor `none` below the floor `sandboxed` of [default]
 --> p.toml:7:9
7 | floor = \"none\"
  |         ^^^^^^ a layer may raise the floor, not lower it
  = note: the floor is set at p.toml:3:9
error: [nodes.c] sets mode `in-process` below the floor `sandboxed` of [default]
 --> p.toml:9:8
9 | mode = \"in-process\"
  |        ^^^^^^^^^^^^ expected `sandboxed`, or a lower floor
  = note: the floor is set at p.toml:3:9"
    );
}

#[test]
fn a_node_has_no_floor() {
    assert_eq!(
        refused("schema = 1\n[nodes.a]\nfloor = \"none\"\n"),
        "error: [nodes.a] can't have a `floor`
 --> p.toml:3:1
3 | floor = \"none\"
  | ^^^^^ a floor belongs in [default] or [subnets.ID]"
    );
}

#[test]
fn an_id_has_bounded_length_and_plain_characters() {
    let long = "a".repeat(64);
    let errors = refused(&format!("schema = 1\n[subnets.\"a b\"]\n[nodes.{long}]\n[nodes.\"\"]\n"));
    assert_eq!(errors.matches("is not an id for").count(), 3, "{errors}");
    assert!(Policy::parse("p", &format!("schema = 1\n[subnets.{}]\n", &long[1..])).is_ok());
}

#[test]
fn columns_count_characters_and_control_characters_are_not_printed() {
    let text = refused("schema = 1\n\"ä\u{1b}[31m\" = 1\n");
    assert!(text.starts_with("error: not TOML"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(refused("schema = 1\nsubnets = { \"ää\" = 3, x = 4 }\n").contains("p.toml:2:27\n"));
}

#[test]
fn size_and_number_of_entries_are_bounded() {
    let large = format!("schema = 1\n{}", "#".repeat(FILE_BYTES_MAX));
    assert!(refused(&large).starts_with("error: the file has"));
    let entries: String = (0..=ENTRIES_MAX).map(|id| format!("[nodes.n{id}]\n")).collect();
    assert!(refused(&format!("schema = 1\n{entries}")).starts_with(
        "error: 10001 subnets, nodes, canisters, exemptions, rollouts, steps and guards, at most 10000"
    ));
}

#[test]
fn a_file_that_is_not_text_is_refused() {
    let errors = Policy::parse_bytes("p.toml", b"schema = 1\n\xff").unwrap_err();
    assert_eq!(errors[0].position.line, 2);
    assert_eq!(errors[0].message, "the file is not UTF-8 text");
}

#[test]
fn bounds_are_read_with_their_units_and_silence_leaves_what_is_built_in() {
    let text = "schema = 1\n[sandbox]\nworkers_max = 1_000\nworker_memory = \"12GiB\"\nidle = \"5m\"\n[in_process]\ncode_max = 7\n";
    let bounds = Policy::parse("p.toml", text).unwrap().bounds().clone();
    let expected = Bounds {
        workers_max: Some(1_000),
        worker_memory_bytes: Some(12 << 30),
        idle_ms: Some(300_000),
        code_max: Some(7),
        ..Bounds::default()
    };
    assert_eq!(bounds, expected);
    assert_eq!(Policy::parse("p.toml", "schema = 1\n").unwrap().bounds(), &Bounds::default());
}

#[test]
fn a_size_or_duration_with_another_unit_or_none_is_refused_with_what_was_meant() {
    assert_eq!(
        refused("schema = 1\n[sandbox]\nworker_memory = \"12GB\"\nidle = \"300\"\nstep_patience = 10\n"),
        "error: `worker_memory` is `12GB`
 --> p.toml:3:17
3 | worker_memory = \"12GB\"
  |                 ^^^^^^ expected a size such as \"12GiB\", from 64MiB to 1024TiB (B, KiB, MiB, GiB or TiB); did you mean `12GiB`?
error: `idle` is `300`
 --> p.toml:4:8
4 | idle = \"300\"
  |        ^^^^^ expected a duration such as \"300s\", from 1s to 30d (ms, s, m, h or d); did you mean `300s`?
error: `step_patience` is an integer
 --> p.toml:5:17
5 | step_patience = 10
  |                 ^^ expected a duration such as \"300s\", from 1s to 1h (ms, s, m, h or d)"
    );
}

#[test]
fn a_flag_is_true_or_false_and_nothing_like_it() {
    assert_eq!(
        refused("schema = 1\n[sandbox]\nprivate_images = \"yes\"\n"),
        "error: `private_images` is a string
 --> p.toml:3:18
3 | private_images = \"yes\"
  |                  ^^^^^ expected true or false"
    );
    let policy = Policy::parse("p.toml", "schema = 1\n[sandbox]\nprivate_images = false\n").unwrap();
    assert_eq!(policy.bounds().private_images, Some(0));
}

#[test]
fn the_code_cache_has_a_directory_with_an_absolute_path() {
    let text =
        "schema = 1\n[code_cache]\ndirectory = \"/var/cache/bulkhead\"\nsize = \"2GiB\"\nmodules_max = 9\n";
    let policy = Policy::parse("p.toml", text).unwrap();
    let expected = Bounds {
        code_cache_directory: Some("/var/cache/bulkhead".into()),
        code_cache_bytes: Some(2 << 30),
        code_cache_modules: Some(9),
        ..Bounds::default()
    };
    assert_eq!(policy.bounds(), &expected);
    let long = format!("/{}", "d".repeat(4095));
    for (written, shown) in [
        ("\"cache\"", "`cache`"),
        ("\"~/cache\"", "`~/cache`"),
        ("\"\"", "``"),
        ("\"/a\\u0000b\"", "`/a"),
        ("7", "an integer"),
        (format!("\"{long}\"").as_str(), "`/ddd"),
    ] {
        let text = refused(&format!("schema = 1\n[code_cache]\ndirectory = {written}\n"));
        assert!(text.starts_with(&format!("error: `directory` is {shown}")), "{text}");
        assert!(text.contains(" --> p.toml:3:13\n"), "{text}");
        assert!(text.contains("expected an absolute path of at most 4095 bytes"), "{text}");
    }
}

#[test]
fn a_code_cache_without_a_directory_is_refused() {
    assert_eq!(
        refused("schema = 1\n[code_cache]\nsize = \"2GiB\"\n"),
        "error: [code_cache] has no `directory`
 --> p.toml:2:1
2 | [code_cache]
  | ^^^^^^^^^^^^ expected an absolute path of at most 4095 bytes, without control characters"
    );
}

#[test]
fn a_bound_outside_of_its_range_is_refused() {
    assert_eq!(
        refused(
            "schema = 1\n[sandbox]\nworkers_max = 0\nidle = \"31d\"\npool = \"2\"\n[in_process]\ninstances_max = -1\n"
        ),
        "error: `workers_max` is `0`
 --> p.toml:3:15
3 | workers_max = 0
  |               ^ expected a whole number from 1 to 100000
error: `idle` is `31d`
 --> p.toml:4:8
4 | idle = \"31d\"
  |        ^^^^^ expected a duration such as \"300s\", from 1s to 30d (ms, s, m, h or d)
error: `pool` is a string
 --> p.toml:5:8
5 | pool = \"2\"
  |        ^^^ expected a whole number from 0 to 1000
error: `instances_max` is `-1`
 --> p.toml:7:17
7 | instances_max = -1
  |                 ^^ expected a whole number from 0 to 4000"
    );
}

#[test]
fn an_unknown_bound_is_refused_with_a_suggestion() {
    assert_eq!(
        refused("schema = 1\nsandbox = 3\n[in_process]\ninstance_max = 3\nmode = \"shadow\"\n"),
        "error: [sandbox] is an integer
 --> p.toml:2:11
2 | sandbox = 3
  |           ^ expected a table
error: unknown key `instance_max` in [in_process]
 --> p.toml:4:1
4 | instance_max = 3
  | ^^^^^^^^^^^^ expected instances_max or code_max; did you mean `instances_max`?
error: unknown key `mode` in [in_process]
 --> p.toml:5:1
5 | mode = \"shadow\"
  | ^^^^ expected instances_max or code_max"
    );
    assert!(
        refused("schema = 1\n[capacity]\nmax_sandbox_rss = \"24GiB\"\n")
            .starts_with("error: `capacity` is not supported yet in this version")
    );
}

#[test]
fn every_key_that_is_misspelt_is_refused_with_the_right_one() {
    let keys = crate::schema::keys();
    assert_eq!(keys.len(), 77);
    for (header, key) in keys {
        let text = refused(&format!("schema = 1\n{header}\n{key}x = 1\n"));
        assert!(
            text.contains(&format!("error: unknown key `{key}x` in {header}\n --> p.toml:3:1\n")),
            "{text}"
        );
        assert!(text.contains(&format!("did you mean `{key}`?")), "{text}");
    }
}

#[test]
fn every_key_with_a_value_of_another_type_is_refused_where_the_value_stands() {
    let decimals = ["percent", "limit", "quantile", "max_cpu_share", "deadline_factor"];
    for (header, key) in crate::schema::keys() {
        // That of steps is a table of its own kind.
        if (header.as_str(), key.as_str()) == ("[rollouts.a]", "steps") {
            continue;
        }
        let decimal = decimals.contains(&key.as_str());
        let (value, named) = if decimal { ("true", "a boolean") } else { ("1.5", "a float") };
        let text = refused(&format!("schema = 1\n{header}\n{key} = {value}\n"));
        let column = key.len() + 4;
        assert!(text.contains(&format!("error: `{key}` is {named}\n --> p.toml:3:{column}\n")), "{text}");
    }
}

#[test]
fn a_value_that_no_key_of_its_kind_takes_is_refused_with_what_is_right() {
    for (line, shown) in [
        ("expires = \"2026-12-01\"", "`expires` is a string"),
        ("expires = 2026-12-01T00:00:00", "`expires` is `2026-12-01T00:00:00`"),
        ("expires = 00:00:00", "`expires` is `00:00:00`"),
        ("expires = 2026-02-30", "not TOML"),
        ("reason = \"\"", "`reason` is ``"),
        ("reason = \"a\\nb\"", "`reason` is `a"),
        ("labels = { tier = 1 }", "`labels` is a table of something else"),
        ("labels = { tier = \"\" }", "`labels` is a table of something else"),
        ("labels = [\"tier\"]", "`labels` is an array"),
    ] {
        let text = refused(&format!("schema = 1\n[subnets.a]\nmode = \"shadow\"\n{line}\n"));
        assert!(text.starts_with(&format!("error: {shown}")), "{line}: {text}");
        assert!(text.contains(" --> p.toml:4:"), "{text}");
    }
    let long = "x".repeat(201);
    assert!(
        refused(&format!("schema = 1\n[nodes.a]\nreason = \"{long}\"\n")).contains("1 to 200 characters")
    );
    let quoted = refused("schema = 1\n[nodes.a]\nmode = \"shadow\"\nexpires = \"2026-12-01\"\n");
    assert!(quoted.contains("did you mean `2026-12-01`?"), "{quoted}");
    for id in
        ["", "aaaaa-aa", "2vxsx-fae", "ryjl3-tyaaa-aaaaa-aaaba-cax", "RYJL3-TYAAA-AAAAA-AAABA-CAI", "ryjl3"]
    {
        let text = refused(&format!("schema = 1\n[[canisters]]\nid = \"{id}\"\nmode = \"shadow\"\n"));
        assert!(text.starts_with(&format!("error: `id` is `{id}`\n --> p.toml:3:6\n")), "{text}");
    }
    for names in ["[]", "[1]", "[\"alice\", \"alice\"]", "[\"\"]", "\"alice\""] {
        let text = refused(&format!("schema = 1\n[[exemptions]]\napproved_by = {names}\n"));
        assert!(
            text.contains("error: `approved_by` is an array of something else\n --> p.toml:3:15\n")
                || text.contains("error: `approved_by` is a string\n --> p.toml:3:15\n"),
            "{text}"
        );
    }
}

#[test]
fn an_entry_without_what_it_needs_is_refused_for_each() {
    assert_eq!(
        refused("schema = 1\n[[exemptions]]\nmode = \"in-process\"\nexpires = 2026-12-01\n"),
        "error: [[exemptions]] has no `id`
 --> p.toml:2:1
2 | [[exemptions]]
  | ^^^^^^^^^^^^^^ expected the id of a canister, such as \"rrkah-fqaaa-aaaaa-aaaaq-cai\"
error: [[exemptions]] has no `reason`
 --> p.toml:2:1
2 | [[exemptions]]
  | ^^^^^^^^^^^^^^ expected a string of 1 to 200 characters, without control characters
error: [[exemptions]] has no `approved_by`
 --> p.toml:2:1
2 | [[exemptions]]
  | ^^^^^^^^^^^^^^ expected an array of 1 to 16 different names"
    );
    for (text, missing) in [
        ("[kill_switch]\nmode = \"shadow\"", "[kill_switch] has no `file`"),
        ("[kill_switch]\nfile = \"/KILL\"", "[kill_switch] has no `mode`"),
        ("[meta]\nowner = \"me\"", "[meta] has no `review_by`"),
        ("[[canisters]]\nid = \"ryjl3-tyaaa-aaaaa-aaaba-cai\"", "[[canisters]] has no `mode`"),
        ("[[exemptions]]\nid = \"ryjl3-tyaaa-aaaaa-aaaba-cai\"", "[[exemptions]] has no `expires`"),
    ] {
        let errors = refused(&format!("schema = 1\n{text}\n"));
        assert!(errors.contains(&format!("error: {missing}\n --> p.toml:2:1\n")), "{errors}");
    }
}

#[test]
fn a_rule_that_can_have_no_effect_is_refused() {
    assert_eq!(
        refused("schema = 1\n[[canisters]]\nid = \"ryjl3-tyaaa-aaaaa-aaaba-cai\"\nmode = \"in-process\"\n"),
        "error: `mode` is `in-process`
 --> p.toml:4:8
4 | mode = \"in-process\"
  |        ^^^^^^^^^^^^ expected sandboxed or shadow: a rule for a canister only strengthens"
    );
    let text = refused("schema = 1\n[[exemptions]]\nmode = \"sandboxed\"\n");
    assert!(text.contains("expected in-process or shadow: an exemption only weakens"), "{text}");
    assert_eq!(
        refused("schema = 1\n[nodes.a]\nexpires = 2026-12-01\n"),
        "error: [nodes.a] has `expires` and no `mode` that could expire
 --> p.toml:3:11
3 | expires = 2026-12-01
  |           ^^^^^^^^^^ expected a `mode` beside it"
    );
    let rule = "id = \"ryjl3-tyaaa-aaaaa-aaaba-cai\"\nmode = \"shadow\"\n";
    assert_eq!(
        refused(&format!("schema = 1\n[[canisters]]\n{rule}[[canisters]]\n{rule}")),
        "error: canister `ryjl3-tyaaa-aaaaa-aaaba-cai` stands twice in [[canisters]]
 --> p.toml:6:6
6 | id = \"ryjl3-tyaaa-aaaaa-aaaba-cai\"
  |      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ merge it into the first one
  = note: first defined at p.toml:2:1"
    );
    let weak = refused(&format!("schema = 1\n[default]\nfloor = \"sandboxed\"\n[[canisters]]\n{rule}"));
    assert!(
        weak.contains("[[canisters]] sets mode `shadow` below the floor `sandboxed` of [default]"),
        "{weak}"
    );
}

#[test]
fn a_key_that_is_defined_twice_in_a_list_names_the_first() {
    let text = refused(
        "schema = 1\n[[canisters]]\nid = \"ryjl3-tyaaa-aaaaa-aaaba-cai\"\nmode = \"shadow\"\nmode = \"shadow\"\n",
    );
    assert!(text.starts_with("error: `mode` is defined twice\n --> p.toml:5:1\n"), "{text}");
    assert!(text.ends_with("= note: first defined at p.toml:4:1"), "{text}");
}

#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    for text in ["[capacity]", "[store]", "[admin]", "[[notify.webhooks]]"] {
        let errors = refused(&format!("schema = 1\n{text}\n"));
        assert!(errors.contains("is not supported yet in this version"), "{text}: {errors}");
    }
    for (table, key) in [
        ("[kill_switch]", "max_age"),
        ("[switch]", "prewarm"),
        ("[measure]", "hlog_dir"),
        ("[shadow]", "ignore"),
        ("[shadow]", "order"),
        ("[rollouts.a]", "windows"),
        ("[[rollouts.a.steps]]", "gates"),
        ("[guard_defaults]", "alpha"),
        ("[nodes.a]", "labels"),
    ] {
        let errors = refused(&format!("schema = 1\n{table}\n{key} = 1\n"));
        assert!(
            errors.contains(&format!("`{key}` in {table} is not supported yet in this version")),
            "{errors}"
        );
    }
}

mod hostile {
    use proptest::prelude::*;
    use rollout::Policy;

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(\\PC|[\n\t\"=\\[\\].]|mode|floor|subnets|default|sandbox|idle|pool|schema = 1\n|\\[nodes\\.a\\]\n){0,40}") {
            if let Err(errors) = Policy::parse("p", &text) {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    let _ = error.to_string();
                }
            }
        }
    }
}
