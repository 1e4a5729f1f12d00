//! What others may see of the running nodes: written after each round, read from any thread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use rollout::{LoadError, Receipt, Trigger};
use serde_json::Value;

use crate::Instruments;
use crate::bundle::Before;

/// Where `serve` is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is run yet.
    Starting,
    /// The input log is run again.
    Replaying {
        /// The node that does it, from 1.
        node: usize,
        /// Where it is.
        round: u64,
        /// Where the log ends.
        rounds: u64,
    },
    /// The load's canisters are installed.
    SettingUp,
    /// Messages are taken in.
    Serving,
    /// A node can't run the round; it is tried again. The text says why.
    Held(String),
    /// The input log is as large as it may be.
    Full,
    /// No round will be run any more. The text says why.
    Halted(String),
    /// On the way out.
    Stopping,
}

impl Phase {
    /// A short word.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Replaying { .. } => "replaying",
            Self::SettingUp => "setting-up",
            Self::Serving => "serving",
            Self::Held(_) => "held",
            Self::Full => "full",
            Self::Halted(_) => "halted",
            Self::Stopping => "stopping",
        }
    }

    /// Why no message is taken in; `None`: they are.
    pub(super) fn why_not_ready(&self) -> Option<String> {
        match self {
            Self::Serving => None,
            Self::Starting => Some("the nodes are being started".into()),
            Self::Replaying { node, round, rounds } => {
                Some(format!("node n{node} replays round {round} of {rounds} of the input log"))
            }
            Self::SettingUp => Some("the load's canisters are being installed".into()),
            Self::Held(why) => Some(format!("{why}; the round is tried again")),
            Self::Full => {
                Some("the input log is as large as --log-max allows: start again with a larger one".into())
            }
            Self::Halted(why) => Some(format!("no further round is run: {why}")),
            Self::Stopping => Some("the process is stopping".into()),
        }
    }
}

/// What is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Committed {
    /// Rounds in the log.
    pub(super) rounds: u64,
    /// Users' messages in the log, refused ones included.
    pub(super) messages: u64,
    /// Messages taken in by this process, on the disk.
    pub(super) acknowledged: u64,
    /// Messages refused by this process.
    pub(super) refused: u64,
    /// Bytes of the log.
    pub(super) log_bytes: u64,
    /// Time of the last round, nanoseconds since 1970-01-01.
    pub(super) time: u64,
    /// State root after it, the same on all nodes.
    pub(super) state_root: [u8; 32],
    /// Root of the certified state after it, the same on all nodes.
    pub(super) certified_root: [u8; 32],
}

/// A node as others see it.
pub(super) struct NodeView {
    /// `n1`, `n2`, ...
    pub(super) name: String,
    /// What it measures.
    pub(super) instruments: Instruments,
}

impl NodeView {
    pub(super) fn new(number: usize, instruments: Instruments) -> Self {
        Self { name: format!("n{number}"), instruments }
    }
}

/// Everything that others see.
pub(super) struct Board {
    nodes: Vec<NodeView>,
    /// The state directory, for what is read from there when it is asked for.
    state: PathBuf,
    /// Differences between the modes that earlier processes found.
    found_before: Before,
    began: SystemTime,
    shown: Mutex<Shown>,
}

struct Shown {
    phase: Phase,
    /// Rollouts, as the thread that drives them last saw them; `null`: it isn't there yet.
    rollouts: Arc<Value>,
    /// Their looks so far, by id: apart, because they are many and change seldom.
    history: BTreeMap<String, Vec<Value>>,
    /// What is committed, and when that was written; `None`: it isn't known yet.
    committed: Option<(Committed, Instant)>,
}

impl Board {
    pub(super) fn new(nodes: Vec<NodeView>, state: PathBuf, found_before: Before) -> Self {
        let shown = Shown {
            phase: Phase::Starting,
            rollouts: Arc::default(),
            history: BTreeMap::new(),
            committed: None,
        };
        Self { nodes, state, found_before, began: SystemTime::now(), shown: Mutex::new(shown) }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        // What is shown is whole between any two statements.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes in their order.
    pub(super) fn nodes(&self) -> &[NodeView] {
        &self.nodes
    }

    /// The state directory.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// Differences between the modes that earlier processes found. None of them is in a count or a guard's sight.
    pub(super) fn found_before(&self) -> &Before {
        &self.found_before
    }

    /// When this process began.
    pub(super) fn began(&self) -> SystemTime {
        self.began
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().phase.clone()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    /// What is committed, and when that was written; `None`: the input log isn't run again yet.
    pub(super) fn committed(&self) -> Option<(Committed, Instant)> {
        self.lock().committed
    }

    pub(super) fn set_committed(&self, committed: Committed) {
        self.lock().committed = Some((committed, Instant::now()));
    }

    pub(super) fn rollouts(&self) -> Arc<Value> {
        Arc::clone(&self.lock().rollouts)
    }

    pub(super) fn set_rollouts(&self, rollouts: Value) {
        self.lock().rollouts = Arc::new(rollouts);
    }

    /// The rollouts, each with its looks so far.
    pub(super) fn rollouts_with_history(&self) -> Value {
        let shown = self.lock();
        let mut rollouts = Value::clone(&shown.rollouts);
        for rollout in rollouts["rollouts"].as_array_mut().into_iter().flatten() {
            let looks = rollout["id"].as_str().and_then(|id| shown.history.get(id)).cloned();
            rollout["history"] = looks.unwrap_or_default().into();
        }
        rollouts
    }

    pub(super) fn set_history(&self, rollout: &str, looks: Vec<Value>) {
        self.lock().history.insert(rollout.to_owned(), looks);
    }

    /// Reads the policy file again for every node: what came of it for each.
    pub(super) fn reload(&self, trigger: Trigger) -> Vec<Result<Receipt, LoadError>> {
        self.nodes.iter().map(|node| node.instruments.live().reload(trigger)).collect()
    }
}
