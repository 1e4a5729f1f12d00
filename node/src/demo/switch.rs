//! Edits of the policy file, how long each took to be in effect, and the worker that is killed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use execution::RoundReport;
use rollout::Mode;

use crate::Node;

/// The subnet of the demo, as its policy file calls it.
pub(super) const SUBNET: &str = "demo";
/// The node of the demo, as its policy file calls it.
pub(super) const NODE: &str = "local";

/// A policy file in a folder of its own, which goes when this is dropped.
pub(super) struct PolicyFile {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl PolicyFile {
    /// Writes the first policy.
    pub(super) fn create(mode: Mode) -> Result<Self, String> {
        let folder = tempfile::Builder::new()
            .prefix("bulkhead-demo-")
            .tempdir()
            .map_err(|error| format!("could not make a folder for the policy file: {error}"))?;
        let path = folder.path().join("policy.toml");
        let file = Self { folder, path };
        file.save(mode)?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file at once, as an editor does.
    fn save(&self, mode: Mode) -> Result<(), String> {
        let text = format!(
            "schema = 1\n\n[default]\nmode = \"in-process\"\nfloor = \"none\"\n\n[subnets.{SUBNET}]\nmode = \"{mode}\"\n\n[shadow]\nmax_cpu_share = 1\n"
        );
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(self.folder.path())?;
            file.write_all(text.as_bytes())?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().map_err(|error| format!("could not save {}: {error}", self.path.display()))
    }
}

/// One edit of the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Switch {
    /// The mode that the file says from then on.
    pub(super) to: Mode,
    /// From the save to the first committed message in that mode; `None`: none was.
    pub(super) took: Option<Duration>,
}

/// What was done to the node besides sending messages.
pub(super) struct Records {
    /// Edits in order.
    pub(super) switches: Vec<Switch>,
    /// Workers killed.
    pub(super) killed: Vec<i32>,
}

/// Edits the policy and watches for their effect.
pub(super) struct Switches {
    file: PolicyFile,
    saved: Option<Instant>,
    records: Records,
}

impl Switches {
    pub(super) fn new(file: PolicyFile) -> Self {
        Self { file, saved: None, records: Records { switches: Vec::new(), killed: Vec::new() } }
    }

    /// Saves a policy with another mode.
    pub(super) fn save(&mut self, to: Mode) -> Result<(), String> {
        self.saved = Some(Instant::now());
        self.records.switches.push(Switch { to, took: None });
        self.file.save(to)
    }

    /// Looks at what a round has just committed; says so when it is the first in the mode saved last.
    pub(super) fn observe(&mut self, node: &Node, report: &RoundReport) -> Option<String> {
        let saved = self.saved?;
        let switch = self.records.switches.last_mut()?;
        let mode = switch.to;
        let in_mode = |id| node.measured(id).is_some_and(|measured| measured.mode == mode);
        report.executed.iter().find(|executed| in_mode(executed.invocation))?;
        let took = saved.elapsed();
        switch.took = Some(took);
        self.saved = None;
        Some(format!(
            "first message committed in mode {mode}: {:.1} ms after the save",
            took.as_secs_f64() * 1e3
        ))
    }

    /// Kills the worker of some canister, as an operator or the kernel might.
    pub(super) fn kill_a_worker(&mut self, node: &Node) -> String {
        let workers = node.sandbox().map(|status| status.workers).unwrap_or_default();
        let mut serving = workers.iter().filter_map(|worker| Some((worker, worker.canister?.0)));
        // Another one each time.
        let Some((worker, canister)) = serving.nth(self.records.killed.len()) else {
            return "no worker to kill".to_owned();
        };
        match node.kill_worker(worker) {
            Ok(()) => {
                self.records.killed.push(worker.pid);
                format!("SIGKILL to worker {} of canister {canister}", worker.pid)
            }
            Err(error) => format!("could not kill worker {}: {error}", worker.pid),
        }
    }

    pub(super) fn into_records(self) -> Records {
        self.records
    }
}
