//! Hashes derived by hand from the domain separators, and what a witness shows and hides.

use std::collections::BTreeMap;
use std::sync::Arc;

use ic_certification::LookupResult;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::{Labels, Selection, Tree};
use crate::root::Root;

fn leaf(bytes: impl AsRef<[u8]>) -> Tree {
    Tree::Leaf(Arc::from(bytes.as_ref()))
}

fn hash(domain: &str, parts: &[&[u8]]) -> Root {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update([u8::try_from(domain.len()).unwrap()]);
    hash.update(domain);
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn hash_of_leaf(value: &str) -> Root {
    hash("ic-hashtree-leaf", &[value.as_bytes()])
}

fn hash_of_labeled(label: &str, below: Root) -> Root {
    hash("ic-hashtree-labeled", &[label.as_bytes(), &below])
}

fn hash_of_fork(left: Root, right: Root) -> Root {
    hash("ic-hashtree-fork", &[&left, &right])
}

/// Two hashes that stand in the example of the Interface Specification.
#[test]
fn hashes_are_those_of_the_specification() {
    let good = "7b32ac0c6ba8ce35ac82c255fc7906f7fc130dab2a090f80fe12f9c2cae83ba6";
    assert_eq!(hex::encode(leaf("good").hash()), good);
    let c = "ec8324b8a1f1ac16bd2e806edba78006479c9877fed4eb464a25485465af601d";
    assert_eq!(hex::encode(Labels::of([("c", Tree::Labels(Labels::default()))]).hash()), c);
}

#[test]
fn a_tree_has_the_hash_that_its_shape_gives_by_hand() {
    assert_eq!(Labels::default().hash(), hash("ic-hashtree-empty", &[]));
    let five =
        Labels::of([("d", "4"), ("ab", "5"), ("c", "3"), ("a", "1"), ("b", "2")].map(|(l, v)| (l, leaf(v))));
    let entry = |label, value| hash_of_labeled(label, hash_of_leaf(value));
    // `a` begins `ab`; `a`, `b`, `c` (011000xx) part from `d` (01100100) first, then `a` from the other two.
    let on_a = hash_of_fork(entry("a", "1"), entry("ab", "5"));
    let on_bc = hash_of_fork(entry("b", "2"), entry("c", "3"));
    let by_hand = hash_of_fork(hash_of_fork(on_a, on_bc), entry("d", "4"));
    assert_eq!(five.hash(), by_hand);
    let known = "ed9ffef2d3bb625f88a8cdae1e42326cbe092cba338da9df8cb423ac8db05217";
    assert_eq!(hex::encode(by_hand), known);
}

#[test]
fn a_missing_label_shows_by_its_neighbours_alone() {
    let labels = Tree::Labels(Labels::of(["b", "d", "f", "h"].map(|label| (label, leaf(label)))));
    for (missing, before, behind) in
        [("a", None, Some("b")), ("e", Some("d"), Some("f")), ("z", Some("h"), None)]
    {
        let path: [&[u8]; 1] = [missing.as_bytes()];
        let witness = labels.witness(&Selection::of([&path[..]]));
        assert_eq!(witness.digest(), labels.hash());
        assert_eq!(witness.lookup_path([missing]), LookupResult::Absent, "{missing}");
        assert_eq!(witness.list_paths(), Vec::<Vec<ic_certification::Label>>::new(), "no value is shown");
        let text = format!("{witness:?}");
        for label in ["b", "d", "f", "h"] {
            let seen = text.contains(&format!("Label(\"{label}\""));
            assert_eq!(seen, [before, behind].contains(&Some(label)), "{missing}: {text}");
        }
    }
}

type Values = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Few letters, so that labels begin each other.
fn label() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(1), Just(0x80), Just(0xff), any::<u8>()], 0..4)
}

fn values() -> impl Strategy<Value = Values> {
    btree_map(label(), btree_map(label(), vec(any::<u8>(), 0..3), 0..5), 0..12)
}

fn labels(values: &BTreeMap<Vec<u8>, Vec<u8>>) -> Tree {
    Tree::Labels(Labels::of(values.iter().map(|(label, value)| (label, leaf(value)))))
}

fn tree(values: &Values) -> Labels {
    Labels::of(values.iter().map(|(label, below)| (label, labels(below))))
}

proptest! {
    #[test]
    fn a_witness_has_the_trees_hash_and_shows_what_was_asked_for_and_no_more(
        values in values(),
        asked in vec((label(), label()), 0..6),
        present in vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let all: Vec<_> =
            values.iter().flat_map(|(first, below)| below.keys().map(|second| (first.clone(), second.clone()))).collect();
        let present = present.iter().filter(|_| !all.is_empty()).map(|index| index.get(&all).clone());
        let asked: Vec<(Vec<u8>, Vec<u8>)> = asked.into_iter().chain(present).collect();
        let paths: Vec<[&[u8]; 2]> = asked.iter().map(|(a, b)| [a.as_slice(), b.as_slice()]).collect();
        let tree = Tree::Labels(tree(&values));
        let witness = tree.witness(&Selection::of(paths.iter().map(|path| &path[..])));
        prop_assert_eq!(witness.digest(), tree.hash());
        for path in &paths {
            let value = values.get(path[0]).and_then(|below| below.get(path[1]));
            let expected = value.map_or(LookupResult::Absent, |value| LookupResult::Found(value));
            prop_assert_eq!(witness.lookup_path(path), expected);
        }
        for path in witness.list_paths() {
            prop_assert!(paths.iter().any(|asked| asked.iter().copied().eq(path.iter().map(|label| label.as_bytes()))));
        }
    }

    #[test]
    fn the_hash_follows_from_the_labels_and_not_from_their_history(
        kept in values(),
        passing in values(),
        order in any::<u64>(),
    ) {
        let mut entries: Vec<_> = passing.iter().chain(&kept).collect();
        let start = usize::try_from(order).unwrap() % entries.len().max(1);
        entries.rotate_left(start);
        let mut grown = Labels::default();
        entries.iter().for_each(|(label, below)| grown.insert(label, labels(below)));
        // Somebody has the tree as it is now, with hashes or without.
        let held = grown.clone();
        let hash = (order % 2 == 0).then(|| held.hash());
        for (label, below) in &kept {
            grown.insert(label, labels(below));
        }
        for label in passing.keys().filter(|label| !kept.contains_key(*label)) {
            grown.remove(label);
        }
        prop_assert_eq!(grown.hash(), tree(&kept).hash());
        let all: Values = entries.iter().map(|(label, below)| ((*label).clone(), (*below).clone())).collect();
        prop_assert_eq!(held.hash(), tree(&all).hash());
        prop_assert_eq!(hash.unwrap_or(held.hash()), held.hash());
    }

    #[test]
    fn labels_ascend(values in values()) {
        let whole = Tree::Labels(tree(&values)).witness(&Selection::All);
        let first: Vec<Vec<u8>> = whole.list_paths().iter().map(|path| path[0].as_bytes().to_vec()).collect();
        let all: Vec<Vec<u8>> =
            values.iter().flat_map(|(first, below)| below.keys().map(|_| first.clone())).collect();
        prop_assert_eq!(first, all);
    }
}
