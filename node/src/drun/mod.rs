//! `bulkhead drun`: runs scripts of the test driver that the Motoko project uses.

mod driver;
mod report;
mod script;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

pub use driver::{Driver, DriverError, ROUNDS_PER_MESSAGE_MAX};
pub use report::Report;
use sandbox_host::Confinement;
pub use script::{Call, Command, InstallMode, Line, SCRIPT_BYTES_MAX, Script, SyntaxError};

use crate::cli::CommandError;
use crate::{Node, NodeOptions, Preset, RecordError};

/// Largest module file that is read, bytes: somewhat more than the system takes, so that its own answer
/// to a module that is too large is seen.
pub const MODULE_BYTES_MAX: usize = 128 << 20;

/// What to run, and what to write besides the output.
#[derive(Clone, Copy, Debug)]
pub struct DrunOptions<'a> {
    /// The script.
    pub script: &'a Path,
    /// Where canister code runs.
    pub mode: rollout::Mode,
    /// Where the report goes.
    pub report: Option<&'a Path>,
    /// Where the log goes, for `bulkhead replay`.
    pub record: Option<&'a Path>,
}

/// Runs a script; the output goes to standard output.
///
/// # Errors
/// The script can't be read, has a syntax error, names a file that can't be read, or the node can't run it.
/// What canisters answer is never an error.
pub fn run(options: &DrunOptions<'_>) -> Result<(), CommandError> {
    let DrunOptions { script: path, mode, report, record } = *options;
    let name = path.display();
    let bytes = read_bounded(path, SCRIPT_BYTES_MAX)
        .map_err(|error| CommandError::Failed(format!("could not read script {name}: {error}")))?;
    let script = Script::parse(&bytes).map_err(|error| CommandError::Failed(format!("{name}: {error}")))?;
    let modules = driver::Modules::load(&script, path.parent().unwrap_or(Path::new("")))
        .map_err(|error| CommandError::Failed(format!("{name}: {error}")))?;
    let report = report.map(create_report).transpose()?;
    let preset = if script.application_subnet { Preset::Application } else { Preset::System };
    let mut node =
        Node::new(NodeOptions { message_roots: report.is_some(), ..NodeOptions::fixed(mode, preset) })
            .map_err(|error| CommandError::Failed(error.to_string()))?;
    if let Some(log) = record {
        node.record_to(log).map_err(|error| CommandError::Failed(error.to_string()))?;
    }
    let outcome = crate::node::on_executor_stack(move || {
        let mut driver = Driver::new(node, io::stdout().lock(), report)?;
        script.lines.iter().try_for_each(|line| driver.step(line, &modules))?;
        driver.finish()
    });
    let mut node = outcome.map_err(|error| match error {
        DriverError::Output(error) => CommandError::output(&error),
        error @ DriverError::Stuck { .. } => CommandError::Failed(format!("{name}: {error}")),
        error @ (DriverError::Report(_) | DriverError::Record(_) | DriverError::Start(_)) => {
            CommandError::Failed(error.to_string())
        }
    })?;
    if let Some(log) = record {
        let recorded = node.finish_recording().map_err(|error| RecordError::new(log, error));
        let recorded = recorded.map_err(|error| CommandError::Failed(error.to_string()))?.unwrap_or_default();
        // The log is complete; there is nobody to tell when standard error is closed.
        let _ = writeln!(io::stderr(), "recorded in {}: {recorded}", log.display());
    }
    // The script's own output is complete; there is nobody to tell when standard error is closed.
    let _ = write_notes(io::stderr(), &node, mode);
    Ok(())
}

/// What else there is to know: layers that are missing, and what running everything in both modes showed.
fn write_notes(mut out: impl Write, node: &Node, mode: rollout::Mode) -> io::Result<()> {
    if let Some(confinement @ Confinement::Reduced(_)) = node.confinement() {
        writeln!(out, "warning: confinement of the sandbox is {confinement}")?;
    }
    if mode != rollout::Mode::Shadow {
        return Ok(());
    }
    for record in node.divergences() {
        writeln!(out, "different ({} times): {}", record.count, record.first)?;
    }
    let counts = node.shadow_counts();
    writeln!(
        out,
        "shadow: {} executions, {} equal, {} different, {} failed, {} not compared",
        counts.offered,
        counts.equal,
        counts.diverged,
        counts.failed,
        counts.let_go()
    )
}

fn create_report(path: &Path) -> Result<Report<BufWriter<File>>, CommandError> {
    let file = File::create(path).map_err(|error| {
        CommandError::Failed(format!("could not create report {}: {error}", path.display()))
    })?;
    Ok(Report::new(BufWriter::new(file)))
}

/// Reads a file of at most `bytes_max` bytes.
fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than the {} MiB that are read", bytes_max >> 20),
        ));
    }
    Ok(bytes)
}

/// Writes a line and lets it out, so that output appears as things happen.
fn write_line(out: &mut impl Write, line: &str) -> Result<(), DriverError> {
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(DriverError::Output)
}
