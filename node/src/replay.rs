//! `bulkhead replay`: runs a log again and compares, message by message, with the recording or with another mode.

mod output;
mod play;
mod states;

use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::Path;

pub use play::{Counts, Difference, Play, Verdict};

use crate::cli::CommandError;
use crate::log::{Extent, LogError, Reader, Survey, survey};
use crate::{Node, NodeOptions};
use output::Output;

/// Bytes read ahead.
const BUFFER_BYTES: usize = 256 << 10;

/// Replays the log at `path` in `mode` and compares with the recording, or with `against`.
///
/// # Errors
/// They differ, or the log or the node is no good for saying.
pub fn run(
    path: &Path,
    mode: rollout::Mode,
    against: Option<rollout::Mode>,
    as_json: bool,
) -> Result<(), CommandError> {
    let undecided =
        |what: &dyn std::fmt::Display| CommandError::Undecided(format!("{}: {what}", path.display()));
    let mut file =
        File::open(path).map_err(|error| undecided(&format!("could not open the log: {error}")))?;
    let survey = survey(BufReader::with_capacity(BUFFER_BYTES, &file)).map_err(|error| undecided(&error))?;
    if let Some((recorded, here)) = survey.head.conflict() {
        let text = format!("limits have changed since: recorded with `{recorded}`, here it is `{here}`");
        return Err(undecided(&text));
    }
    if let Extent::Until(_, error) = &survey.extent
        && survey.rounds == 0
    {
        return Err(undecided(&format!("{error}: there is no whole round")));
    }
    file.rewind().map_err(|error| undecided(&format!("could not read the log again: {error}")))?;
    let output = crate::node::on_executor_stack(|| replay(&file, survey, mode, against))
        .map_err(|error| undecided(&error))?;
    // Whoever asked doesn't know the outcome, and 1 would say that there is a difference.
    output
        .print(path, as_json)
        .map_err(|error| undecided(&format!("could not write to standard output: {error}")))?;
    match (&output.verdict, &output.survey.extent) {
        (Verdict::Different(_), _) => Err(CommandError::Reported),
        (Verdict::Undecided(why), _) => Err(undecided(why)),
        (Verdict::Equal, Extent::Until(_, error)) => Err(undecided(&format!(
            "{error}; equal up to the last whole round, round {}",
            output.survey.rounds
        ))),
        (Verdict::Equal, Extent::Whole) => Ok(()),
    }
}

/// Why a replay has no outcome.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error(transparent)]
    Node(#[from] crate::NodeError),
    #[error(transparent)]
    Log(#[from] LogError),
}

fn replay(
    file: &File,
    survey: Survey,
    mode: rollout::Mode,
    against: Option<rollout::Mode>,
) -> Result<Output, ReplayError> {
    let new = |mode| Node::new(NodeOptions::fixed(mode, survey.head.preset));
    let (node, other) = match against {
        // With a sandbox on either side, that is where modules are compiled, for both.
        Some(against) if mode == rollout::Mode::InProcess => {
            let other = new(against)?;
            (other.twin(mode)?, Some(other))
        }
        against => {
            let node = new(mode)?;
            let other = against.map(|mode| node.twin(mode)).transpose()?;
            (node, other)
        }
    };
    let mut play = match other {
        None => Play::beside_recording(node, mode.as_str()),
        Some(other) => Play::beside(node, other, rollout::Beside::names_of([mode, against.unwrap_or(mode)])),
    };
    let mut reader = Reader::begin(BufReader::with_capacity(BUFFER_BYTES, file))?;
    let until = match &survey.extent {
        Extent::Whole => None,
        Extent::Until(offset, _) => Some(*offset),
    };
    let verdict = play.run(&mut reader, until)?;
    let modes = [Some(mode), against];
    Ok(Output::new(survey, verdict, play, modes))
}
