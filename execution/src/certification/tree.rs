//! A persistent hash tree: labels to subtrees, at each level a binary trie over the labels' bits.
//!
//! The shape follows from the labels alone, not from the order in which they came, so that equal states have
//! equal roots. A change copies what of the path to it is shared and works in place on the rest; hashes are kept with
//! the nodes and computed when asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ic_certification::{HashTree, empty, fork, fork_hash, labeled, labeled_hash, leaf, leaf_hash, pruned};

use crate::Module;
use crate::certification::public_state;
use crate::root::Root;
use crate::state::{IngressRecord, Shared};

/// A tree, or what hangs below a label.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    /// A value.
    Leaf(Arc<[u8]>),
    /// The content of a module's `icp:` custom section, which is not copied.
    Section(Arc<Module>, String),
    /// What is public of a request, made of its record when it is to be hashed or shown.
    Request(Shared<IngressRecord>),
    /// Labels with trees below.
    Labels(Labels),
}

/// Labels in ascending order, each with a tree below.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels(Option<Arc<Node>>);

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    /// Empty in each node that is on the path to a change.
    hash: OnceLock<Root>,
}

#[derive(Clone, Debug)]
enum Kind {
    Entry {
        label: Box<[u8]>,
        tree: Tree,
    },
    /// All labels below agree before `bit`; those on the left have it clear.
    Fork {
        bit: usize,
        left: Arc<Node>,
        right: Arc<Node>,
    },
}

/// What of a tree is to be shown.
#[derive(Debug)]
pub(crate) enum Selection<'a> {
    /// All of it.
    All,
    /// What is below these labels; or, where there is none, that there is none.
    Labels(BTreeMap<&'a [u8], Selection<'a>>),
}

impl<'a> Selection<'a> {
    /// All that is below each of `paths`.
    pub(crate) fn of<'p>(paths: impl IntoIterator<Item = &'p [&'a [u8]]>) -> Self
    where
        'a: 'p,
    {
        let mut selection = Self::Labels(BTreeMap::new());
        paths.into_iter().for_each(|path| selection.add(path));
        selection
    }

    fn add(&mut self, path: &[&'a [u8]]) {
        match (self, path) {
            (Self::All, _) => {}
            (all, []) => *all = Self::All,
            (Self::Labels(labels), [first, rest @ ..]) => {
                labels.entry(first).or_insert_with(|| Self::Labels(BTreeMap::new())).add(rest);
            }
        }
    }
}

impl Tree {
    pub(crate) fn hash(&self) -> Root {
        match self {
            Self::Leaf(bytes) => leaf_hash(bytes),
            Self::Section(module, name) => leaf_hash(section(module, name)),
            Self::Request(record) => public_state::request(&record.status).hash(),
            Self::Labels(labels) => labels.hash(),
        }
    }

    /// The value, where this is one.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Leaf(bytes) => Some(bytes),
            Self::Section(module, name) => Some(section(module, name)),
            Self::Request(_) | Self::Labels(_) => None,
        }
    }

    /// What is below `label`; nothing that is yet to be made.
    pub(crate) fn get(&self, label: &[u8]) -> Option<&Self> {
        match self {
            Self::Labels(labels) => labels.get(label),
            Self::Leaf(_) | Self::Section(..) | Self::Request(_) => None,
        }
    }

    /// The tree with everything but `shown` pruned; it has the same hash.
    pub(crate) fn witness(&self, shown: &Selection<'_>) -> HashTree {
        match (self, shown) {
            (Self::Labels(Labels(None)), _) => empty(),
            (Self::Labels(Labels(Some(root))), Selection::All) => root.whole(),
            (Self::Labels(labels), Selection::Labels(shown)) => labels.witness(shown),
            (Self::Request(record), shown) => public_state::request(&record.status).witness(shown),
            (leaf, Selection::Labels(_)) => pruned(leaf.hash()),
            (Self::Leaf(bytes), Selection::All) => leaf(&**bytes),
            (Self::Section(module, name), Selection::All) => leaf(section(module, name)),
        }
    }
}

fn section<'a>(module: &'a Module, name: &str) -> &'a [u8] {
    module.interface.custom_sections.get(name).map_or(&[], |section| &section.content)
}

impl Labels {
    pub(crate) fn of<L: AsRef<[u8]>>(entries: impl IntoIterator<Item = (L, Tree)>) -> Self {
        let mut labels = Self::default();
        entries.into_iter().for_each(|(label, tree)| labels.insert(label.as_ref(), tree));
        labels
    }

    pub(crate) fn hash(&self) -> Root {
        self.0.as_ref().map_or_else(|| empty().digest(), |root| root.hash())
    }

    pub(crate) fn get(&self, label: &[u8]) -> Option<&Tree> {
        self.0.as_ref()?.get(label)
    }

    /// Puts `tree` below `label`, in place of what is there.
    pub(crate) fn insert(&mut self, label: &[u8], tree: Tree) {
        let entry = Node::new(Kind::Entry { label: label.into(), tree });
        match &mut self.0 {
            None => self.0 = Some(entry),
            Some(root) => Node::insert(root, first_difference(label, root.like(label)), label, entry),
        }
    }

    /// Takes `label` out.
    pub(crate) fn remove(&mut self, label: &[u8]) {
        if let Some(root) = &mut self.0
            && root.get(label).is_some()
            && !Node::remove(root, label)
        {
            self.0 = None;
        }
    }

    fn witness(&self, shown: &BTreeMap<&[u8], Selection<'_>>) -> HashTree {
        let Some(root) = &self.0 else { return empty() };
        let mut visible: BTreeMap<&[u8], Option<&Selection<'_>>> = BTreeMap::new();
        for (label, below) in shown {
            if root.get(label).is_some() {
                visible.insert(label, Some(below));
                continue;
            }
            // That a label is missing shows where the one before and the one behind it are next to each other.
            for neighbour in root.neighbours(label).into_iter().flatten() {
                visible.entry(neighbour).or_insert(None);
            }
        }
        root.witness(&visible.into_iter().collect::<Vec<_>>())
    }
}

impl Node {
    fn new(kind: Kind) -> Arc<Self> {
        Arc::new(Self { kind, hash: OnceLock::new() })
    }

    fn fork(bit: usize, left: Arc<Self>, right: Arc<Self>) -> Arc<Self> {
        Self::new(Kind::Fork { bit, left, right })
    }

    fn hash(&self) -> Root {
        *self.hash.get_or_init(|| match &self.kind {
            Kind::Entry { label, tree } => labeled_hash(label, &tree.hash()),
            Kind::Fork { left, right, .. } => fork_hash(&left.hash(), &right.hash()),
        })
    }

    /// The label found by the bits that the forks look at.
    fn like(&self, wanted: &[u8]) -> &[u8] {
        self.entry(wanted).0
    }

    fn entry(&self, wanted: &[u8]) -> (&[u8], &Tree) {
        match &self.kind {
            Kind::Entry { label, tree } => (label, tree),
            Kind::Fork { bit, left, right } => {
                if has_bit(wanted, *bit) {
                    right.entry(wanted)
                } else {
                    left.entry(wanted)
                }
            }
        }
    }

    fn get(&self, wanted: &[u8]) -> Option<&Tree> {
        let (label, tree) = self.entry(wanted);
        (label == wanted).then_some(tree)
    }

    /// The side of a fork on which `label` belongs, to be changed. What others have too is copied first.
    fn side<'a>(this: &'a mut Arc<Self>, label: &[u8]) -> Option<&'a mut Arc<Self>> {
        let Self { kind, hash } = Arc::make_mut(this);
        let Kind::Fork { bit, left, right } = kind else { return None };
        *hash = OnceLock::new();
        Some(if has_bit(label, *bit) { right } else { left })
    }

    /// Puts `entry` in, whose label first differs from those here at bit `at`; `None`: it is here.
    fn insert(this: &mut Arc<Self>, at: Option<usize>, label: &[u8], entry: Arc<Self>) {
        let is_below = matches!(this.kind, Kind::Fork { bit, .. } if at.is_none_or(|at| bit < at));
        if is_below && let Some(side) = Self::side(this, label) {
            return Self::insert(side, at, label, entry);
        }
        *this = match at {
            None => entry,
            Some(at) if has_bit(label, at) => Self::fork(at, Arc::clone(this), entry),
            Some(at) => Self::fork(at, entry, Arc::clone(this)),
        };
    }

    /// Takes the entry of `label` out, which is here; `false`: nothing else is.
    fn remove(this: &mut Arc<Self>, label: &[u8]) -> bool {
        let Kind::Fork { bit, left, right } = &this.kind else { return false };
        let (side, other) = if has_bit(label, *bit) { (right, left) } else { (left, right) };
        if matches!(side.kind, Kind::Fork { .. }) {
            return Self::side(this, label).is_some_and(|side| Self::remove(side, label));
        }
        *this = Arc::clone(other);
        true
    }

    fn first(&self) -> &[u8] {
        match &self.kind {
            Kind::Entry { label, .. } => label,
            Kind::Fork { left, .. } => left.first(),
        }
    }

    fn last(&self) -> &[u8] {
        match &self.kind {
            Kind::Entry { label, .. } => label,
            Kind::Fork { right, .. } => right.last(),
        }
    }

    /// The labels before and behind one that is not here.
    fn neighbours(&self, missing: &[u8]) -> [Option<&[u8]>; 2] {
        let at = first_difference(missing, self.like(missing));
        let [mut before, mut behind] = [None, None];
        let mut node = self;
        while let Kind::Fork { bit, left, right } = &node.kind
            && at.is_none_or(|at| *bit < at)
        {
            if has_bit(missing, *bit) {
                before = Some(left.last());
                node = right;
            } else {
                behind = Some(right.first());
                node = left;
            }
        }
        // All labels of this node are on one side.
        if at.is_some_and(|at| has_bit(missing, at)) {
            before = Some(node.last());
        } else {
            behind = Some(node.first());
        }
        [before, behind]
    }

    /// `visible`: ascending labels that are here, each with what is to be shown below; `None`: the label alone.
    fn witness(&self, visible: &[(&[u8], Option<&Selection<'_>>)]) -> HashTree {
        match (&self.kind, visible) {
            (_, []) => pruned(self.hash()),
            (Kind::Entry { label, tree }, [(_, below), ..]) => {
                labeled(&**label, below.map_or_else(|| pruned(tree.hash()), |below| tree.witness(below)))
            }
            (Kind::Fork { bit, left, right }, visible) => {
                let split = visible.partition_point(|(label, _)| !has_bit(label, *bit));
                let (on_left, on_right) = visible.split_at(split);
                fork(left.witness(on_left), right.witness(on_right))
            }
        }
    }

    fn whole(&self) -> HashTree {
        match &self.kind {
            Kind::Entry { label, tree } => labeled(&**label, tree.witness(&Selection::All)),
            Kind::Fork { left, right, .. } => fork(left.whole(), right.whole()),
        }
    }
}

/// Bits of a label: for each byte one that says that it is there, then its own. So a label that begins another
/// one is before it, and bit order is label order.
const BITS: usize = 9;

fn has_bit(label: &[u8], bit: usize) -> bool {
    label.get(bit / BITS).is_some_and(|byte| match bit % BITS {
        0 => true,
        place => byte >> (BITS - 1 - place) & 1 == 1,
    })
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let equal = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    match (a.get(equal), b.get(equal)) {
        (None, None) => None,
        (Some(a), Some(b)) => Some(equal * BITS + 1 + (a ^ b).leading_zeros() as usize),
        (Some(_), None) | (None, Some(_)) => Some(equal * BITS),
    }
}

#[cfg(test)]
mod tests;
