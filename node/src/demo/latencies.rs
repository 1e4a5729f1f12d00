//! The demo's interval log: two intervals a second, so that `bulkhead compare` has blocks to compare.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rollout::{Hlog, HlogError, Recorder};

/// Length of an interval.
const INTERVAL: Duration = Duration::from_millis(500);

/// A log that is written while the load runs.
pub(super) struct LatencyLog {
    path: PathBuf,
    log: Hlog<BufWriter<File>>,
    written: Instant,
}

impl LatencyLog {
    /// Begins with what was measured while the canisters were installed.
    pub(super) fn create(path: &Path, recorder: &Recorder) -> Result<Self, String> {
        let set_up = recorder.rotate();
        let log = File::create(path)
            .map_err(HlogError::from)
            .and_then(|file| Hlog::begin(BufWriter::new(file), &set_up))
            .and_then(|mut log| log.write(&set_up).map(|()| log))
            .map_err(|error| cannot_write(path, &error))?;
        Ok(Self { path: path.to_owned(), log, written: Instant::now() })
    }

    /// Ends the interval if it is over.
    pub(super) fn step(&mut self, recorder: &Recorder) -> Result<(), String> {
        if self.written.elapsed() >= INTERVAL { self.write(recorder) } else { Ok(()) }
    }

    /// Writes what was measured since the last interval.
    pub(super) fn write(&mut self, recorder: &Recorder) -> Result<(), String> {
        self.written = Instant::now();
        self.log.write(&recorder.rotate()).map_err(|error| cannot_write(&self.path, &error))
    }
}

fn cannot_write(path: &Path, error: &HlogError) -> String {
    format!("could not write {}: {error}", path.display())
}
