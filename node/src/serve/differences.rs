//! What the interface shows of differences between the modes: those that this process has found, and beside them what was
//! kept of those before.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use rollout::{DivergenceClass, DivergenceRecord};
use serde_json::{Map, Value, json};

use super::status::Board;
use super::view::seconds;
use crate::bundle::{Before, Earlier, Kind};

/// Most differences in one answer.
const ROWS_MAX: usize = 1_000;
/// Longest name of a method that is shown, in characters.
const METHOD_CHARS_MAX: usize = 200;

/// What shadow has found on all nodes, and how much it has compared: without that, no difference says nothing.
pub(super) fn divergences(board: &Board) -> Value {
    let counts = || board.nodes().iter().map(|node| node.instruments.shadow_counts());
    let compared: u64 = counts().map(|counts| counts.equal + counts.diverged).sum();
    let all: Map<String, Value> = DivergenceClass::ALL
        .into_iter()
        .map(|class| (class.as_str().to_owned(), counts().map(|counts| counts.of(class)).sum::<u64>().into()))
        .collect();
    let found = board.nodes().iter().flat_map(|node| {
        node.instruments.divergences().into_iter().map(|record| (node.name.as_str(), record))
    });
    let before = board.found_before();
    let mut rows = rows(found.collect(), before);
    let not_shown = rows.len().saturating_sub(ROWS_MAX);
    rows.truncate(ROWS_MAX);
    json!({
        "compared": compared,
        "classes": all,
        "not_shown": not_shown,
        "found_before": { "kinds": before.kinds.len(), "unread": before.unread },
        "divergences": rows,
    })
}

/// Those that were found, each with what is known of its kind from before; then the kinds that were not found again,
/// which push no other out of an answer.
fn rows(mut found: Vec<(&str, DivergenceRecord)>, before: &Before) -> Vec<Value> {
    found.sort_by_key(|(_, record)| (record.first.class, record.first_time));
    let mut again = BTreeSet::new();
    let mut rows = Vec::new();
    for (node, record) in found {
        let kind = Kind::of(&record.first);
        rows.push(since(node, &record, before.kinds.get(&kind)));
        again.insert(kind);
    }
    let others = before.kinds.iter().filter(|(kind, _)| !again.contains(kind));
    rows.extend(others.map(|(kind, earlier)| not_since(kind, earlier)));
    rows
}

fn since(node: &str, record: &DivergenceRecord, earlier: Option<&Earlier>) -> Value {
    let DivergenceRecord { first, first_time, last_invocation, last_time, count, bundle } = record;
    json!({
        "node": node,
        "class": first.class.as_str(),
        "canister": first.canister.to_text(),
        "kind": first.kind,
        "method": first.method.as_deref().map(method),
        "field": first.difference.field.as_str(),
        "control": first.difference.control,
        "candidate": first.difference.candidate,
        "count": count,
        "first_invocation": first.invocation,
        "first_time": seconds(*first_time),
        "last_invocation": last_invocation,
        "last_time": seconds(*last_time),
        "bundle": bundle.as_ref().and_then(|bundle| bundle.as_ref().ok()),
        "no_bundle": bundle.as_ref().and_then(|bundle| bundle.as_ref().err()),
        "found_before": earlier.map(found_before),
    })
}

fn not_since(kind: &Kind, earlier: &Earlier) -> Value {
    json!({
        "node": earlier.node,
        "class": kind.class.as_str(),
        "canister": kind.canister.to_text(),
        "kind": kind.kind,
        "method": kind.method.as_deref().map(method),
        "field": kind.field,
        "control": earlier.control,
        "candidate": earlier.candidate,
        "count": 0,
        "first_invocation": null,
        "first_time": null,
        "last_invocation": null,
        "last_time": null,
        "bundle": earlier.bundle,
        "no_bundle": null,
        "found_before": found_before(earlier),
    })
}

fn found_before(earlier: &Earlier) -> Value {
    let Earlier { node, time_ms, invocation, control: _, candidate: _, bundle } = earlier;
    let time = seconds(UNIX_EPOCH + Duration::from_millis(*time_ms));
    json!({ "node": node, "time": time, "invocation": invocation, "bundle": bundle })
}

fn method(name: &str) -> String {
    name.chars().take(METHOD_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use execution::Principal;
    use rollout::{Comparison, Divergence, Field};

    use super::*;

    fn record(field: Field, class: DivergenceClass) -> DivergenceRecord {
        let difference = Comparison { field, control: "1".into(), candidate: "2".into() };
        let (canister, method) = (Principal::management_canister(), Some("inc".to_owned()));
        let first = Divergence { canister, invocation: 7, kind: "update", method, difference, class };
        let now = SystemTime::now();
        DivergenceRecord {
            first,
            first_time: now,
            last_invocation: 9,
            last_time: now,
            count: 3,
            bundle: Some(Err("full".into())),
        }
    }

    #[test]
    fn a_kind_that_is_found_again_has_one_row_on_each_node_and_what_was_kept_of_it() {
        let earlier = |time_ms| Earlier {
            node: "n2".into(),
            time_ms,
            invocation: 5,
            control: "3".into(),
            candidate: "4".into(),
            bundle: "a.bundle".into(),
        };
        let again = record(Field::Heap, DivergenceClass::Confirmed);
        let other = record(Field::Heap, DivergenceClass::FlakyCandidate);
        let not_since = record(Field::Answer, DivergenceClass::Confirmed);
        let kinds = [(Kind::of(&again.first), earlier(1_500)), (Kind::of(&not_since.first), earlier(2_500))];
        let before = Before { kinds: kinds.into(), unread: Vec::new() };
        let rows = rows(vec![("n1", other), ("n1", again.clone()), ("n2", again)], &before);
        let said = |row: &Value| {
            let [node, class, field] = ["node", "class", "field"].map(|key| row[key].as_str().unwrap());
            let earlier = row["found_before"]["time"].as_f64();
            (format!("{node} {class} {field}"), row["count"].as_u64().unwrap(), earlier)
        };
        let expected = [
            ("n1 confirmed heap", 3, Some(1.5)),
            ("n2 confirmed heap", 3, Some(1.5)),
            ("n1 flaky-candidate heap", 3, None),
            ("n2 confirmed answer", 0, Some(2.5)),
        ];
        let rows: Vec<_> = rows.iter().map(said).collect();
        assert_eq!(rows, expected.map(|(text, count, time)| (text.to_owned(), count, time)));
    }
}
