//! `bulkhead record`: runs a drun script, or the demo, for the sake of its log.

use std::path::PathBuf;

use clap::Args;
use rollout::Mode;

use crate::cli::{CommandError, ModeArg};
use crate::demo::{self, DemoArgs};
use crate::drun::{self, DrunOptions};

/// What a recording may be told.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// The log, written over one that is there
    #[arg(value_name = "LOG")]
    file: PathBuf,
    /// The drun script; without it, the demo is recorded
    script: Option<PathBuf>,
    /// Where the script's canisters run; the demo changes its mode as it goes
    #[arg(long, value_enum, requires = "script")]
    mode: Option<ModeArg>,
    /// Record a demo of 3,000 messages instead of 20,000
    #[arg(long, conflicts_with = "script")]
    quick: bool,
}

/// Runs and records.
///
/// # Errors
/// As for [`drun::run`] or [`demo::run`].
pub fn run(arguments: &RecordArgs) -> Result<(), CommandError> {
    match &arguments.script {
        Some(script) => drun::run(&DrunOptions {
            script,
            mode: arguments.mode.map_or(Mode::InProcess, Mode::from),
            report: None,
            record: Some(&arguments.file),
        }),
        None => demo::run(&DemoArgs::recording(arguments.file.clone(), arguments.quick)),
    }
}
