//! What the step under way has measured: for its guards, and on disk for those who come after.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rollout::store::Counts;
use rollout::{
    Arm, BlockError, Blocks, Design, Hlog, Interval, LOG_BYTES_MAX, Latencies, Mode, RolloutRule, Series,
    Side, Source, StepRule, TrialInterval, Windows, read_log, seed,
};
use sha2::{Digest, Sha256};

use crate::compare::read_file;

/// A log is followed by another one from here on, so that each can be read.
const LOG_BYTES: u64 = (LOG_BYTES_MAX / 2) as u64;
/// Logs of one step that are read again.
const LOGS_MAX: usize = 64;

/// The measurements of a step.
pub(super) struct Trial {
    design: Design,
    /// Of control and candidate.
    arms: [Arm; 2],
    /// By kind, for every kind that a guard asks about.
    windows: BTreeMap<&'static str, Windows>,
    pub(super) counts: Counts,
    logs: Logs,
    /// Why something of it is missing, as the log has said.
    trouble: Option<String>,
}

/// Logs of one step of one run: `RUN-STEP-NUMBER.hlog`, which `bulkhead compare` reads.
struct Logs {
    directory: PathBuf,
    prefix: String,
    /// All of them, the present one last.
    names: Vec<String>,
    open: Option<(Hlog<File>, PathBuf)>,
    /// Those that nothing is written to any more.
    closed: Vec<Source>,
}

impl Trial {
    /// Goes on with what earlier processes have measured of this step, if they have.
    pub(super) fn resume(
        rule: &RolloutRule,
        step: &StepRule,
        kinds: impl IntoIterator<Item = &'static str>,
        block: Duration,
        counts: Counts,
        directory: PathBuf,
    ) -> Result<Self, BlockError> {
        let arms = match (step.design, step.mode) {
            (_, Mode::Shadow) => [Arm::ShadowControl, Arm::ShadowCandidate],
            (Design::Aa, _) => [Arm::committed(rule.control); 2],
            _ => [Arm::committed(rule.control), Arm::committed(step.mode)],
        };
        let windows = kinds.into_iter().map(|kind| Ok((kind, Windows::new(step.design, block)?)));
        remove_other_runs(&directory, counts.run);
        let mut trial = Self {
            design: step.design,
            arms,
            windows: windows.collect::<Result<_, BlockError>>()?,
            counts,
            logs: Logs::find(directory, format!("{}-{}-", counts.run, counts.step)),
            trouble: None,
        };
        trial.read_again();
        Ok(trial)
    }

    /// Which side an arm's latencies are of.
    fn side(&self, arm: Arm) -> Option<Side> {
        if arm == self.arms[0] {
            Some(Side::Control)
        } else {
            (arm == self.arms[1]).then_some(Side::Candidate)
        }
    }

    fn read_again(&mut self) {
        for name in self.logs.names.clone() {
            let path = self.logs.directory.join(&name);
            let bytes = read_file(&path, LOG_BYTES_MAX).map_err(|error| error.to_string());
            let read = bytes.and_then(|bytes| {
                self.logs.closed.push(source(&name, &bytes));
                // A process that was killed leaves a line without its end.
                let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
                let mut intervals = Vec::new();
                let wanted = |arm, kind: &str| self.side(arm).is_some() && self.windows.contains_key(kind);
                read_log(&bytes[..whole], wanted, |interval| {
                    intervals.push(interval);
                    Ok(())
                })
                .map_err(|error| error.to_string())?;
                Ok(intervals)
            });
            match read {
                Ok(intervals) => {
                    for found in intervals {
                        self.put(found.arm, found.kind, found.start, found.duration, &found.latencies);
                    }
                }
                Err(error) => self.trouble(format!("{}: {error}", path.display())),
            }
        }
    }

    /// Says once what is missing.
    fn trouble(&mut self, why: String) {
        if self.trouble.as_ref() != Some(&why) {
            tracing::warn!("the step's measurements: {why}");
            self.trouble = Some(why);
        }
    }

    fn put(&mut self, arm: Arm, kind: &str, start: Duration, duration: Duration, latencies: &Latencies) {
        let Some(side) = self.side(arm) else { return };
        let Some(windows) = self.windows.get_mut(kind) else { return };
        if let Err(error) = windows.add(side, start, duration, latencies) {
            self.trouble(error.to_string());
        }
    }

    /// Takes an interval of all nodes in. Whether there was traffic that the step is about.
    pub(super) fn add(&mut self, taken: &TrialInterval) -> bool {
        let TrialInterval { interval, traps } = taken;
        let start = interval.start.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut messages = [0_u64; 2];
        for (arm, kind, histogram) in interval.series() {
            match self.side(arm) {
                Some(Side::Control) => messages[0] += histogram.len(),
                Some(Side::Candidate) => messages[1] += histogram.len(),
                None => {}
            }
            match Latencies::of(histogram) {
                Ok(latencies) => self.put(arm, kind, start, interval.duration, &latencies),
                Err(error) => self.trouble(error.to_string()),
            }
        }
        let trapped = |arm| traps.get(&arm).copied().unwrap_or_default();
        let traps = self.arms.map(trapped);
        // Control against control: one arm, counted once.
        let sides = if self.design == Design::Aa { 1 } else { 2 };
        for side in 0..sides {
            self.counts.messages[side] += messages[side];
            self.counts.traps[side] += traps[side];
        }
        if let Err(error) = self.logs.write(interval) {
            self.trouble(error);
        }
        match self.design {
            Design::Aa | Design::Switchback => messages != [0, 0],
            Design::NodeSplit | Design::Percent => messages[1] > 0,
        }
    }

    /// The series of a look, a pair of blocks each.
    ///
    /// One that can't be paired any more is left out: its guards have no data, and others go on.
    pub(super) fn series(&self, run: &str, step: &str, look: u32) -> Vec<Series> {
        let series = self.windows.iter().filter_map(|(&kind, windows)| {
            let blocks: Blocks = windows.pair(seed(run, step, look, kind)).ok()?;
            Some(Series { kind, arms: self.arms, blocks })
        });
        series.collect()
    }

    /// The logs that the measurements stand in too.
    pub(super) fn sources(&self) -> Vec<Source> {
        let open = self.logs.open.as_ref().and(self.logs.present());
        self.logs.closed.iter().cloned().chain(open).collect()
    }

    /// Why something is missing.
    pub(super) fn why_incomplete(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

fn source(name: &str, bytes: &[u8]) -> Source {
    let sha256 = hex::encode(Sha256::digest(bytes));
    Source { name: name.to_owned(), sha256, bytes: bytes.len() as u64 }
}

/// Logs of runs that are over: their verdict records hold what was decided by them.
fn remove_other_runs(directory: &Path, run: u32) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
        if name.ends_with(".hlog") && !name.starts_with(&format!("{run}-")) {
            // One that stays costs its room.
            let _ = fs::remove_file(directory.join(name));
        }
    }
}

impl Logs {
    fn find(directory: PathBuf, prefix: String) -> Self {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let ours = |name: &String| name.starts_with(&prefix) && name.ends_with(".hlog");
        let mut names: Vec<String> = names.filter(ours).collect();
        names.sort();
        names.truncate(LOGS_MAX);
        Self { directory, prefix, names, open: None, closed: Vec::new() }
    }

    /// The last one as it is on the disk now.
    fn present(&self) -> Option<Source> {
        let name = self.names.last()?;
        let bytes = read_file(&self.directory.join(name), LOG_BYTES_MAX).ok()?;
        Some(source(name, &bytes))
    }

    fn write(&mut self, interval: &Interval) -> Result<(), String> {
        let full = |path: &Path| fs::metadata(path).is_ok_and(|found| found.len() >= LOG_BYTES);
        if self.open.as_ref().is_none_or(|(_, path)| full(path)) {
            if self.open.take().is_some() {
                self.closed.extend(self.present());
            }
            self.begin(interval).map_err(|error| format!("{}: {error}", self.directory.display()))?;
        }
        let Some((log, path)) = &mut self.open else { return Ok(()) };
        log.write(interval).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn begin(&mut self, first: &Interval) -> Result<(), String> {
        if self.names.len() >= LOGS_MAX {
            return Err(format!("{LOGS_MAX} logs of one step; what follows is in none"));
        }
        fs::create_dir_all(&self.directory).map_err(|error| error.to_string())?;
        let number = |name: &String| name.rsplit_once('-')?.1.strip_suffix(".hlog")?.parse::<u32>().ok();
        let last = self.names.iter().filter_map(number).max().unwrap_or_default();
        let name = format!("{}{:03}.hlog", self.prefix, last.saturating_add(1));
        let path = self.directory.join(&name);
        let file = File::create_new(&path).map_err(|error| format!("{name}: {error}"))?;
        let log = Hlog::begin(file, first).map_err(|error| error.to_string())?;
        self.names.push(name);
        self.open = Some((log, path));
        Ok(())
    }
}
