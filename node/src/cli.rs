//! The command line: what may be asked for, and the way from an answer to an exit code.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::{confinement, demo, drun, policy, record, replay, version};

/// Runs Internet Computer canisters in the node's process or in a sandbox process each, with equal results.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Write log lines to standard error, e.g. `info` or `rollout=debug`; spans name message, canister and mode
    #[arg(long, global = true, value_name = "FILTER", value_parser = log_filter)]
    log: Option<EnvFilter>,
}

fn log_filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(text).map_err(|error| error.to_string())
}

const EXAMPLES: &str = "\
Examples:
  bulkhead demo --quick
  bulkhead drun --mode sandboxed counter.drun
  bulkhead record traffic.log counter.drun
  bulkhead replay traffic.log --mode in-process --against sandboxed
  bulkhead config check prod.toml
  bulkhead explain --config prod.toml --subnet io67a --node cp7d4
  bulkhead sandbox report

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 undecided (replay: the log or the node can't say) or
reduced (sandbox report).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run real canisters under load while the mode is switched, and compare
    #[command(after_help = "\
Starts an embedded node with real canisters and sends messages at a fixed rate. Meanwhile its policy
file is edited (in-process, shadow, sandboxed and back) and a sandbox process is killed. Ends with the
latencies of the modes side by side, how long each switch took, what was lost (nothing) and the state
root beside that of a run that never switched.

Examples:
  bulkhead demo
  bulkhead demo --quick --json
  bulkhead demo --rate 500 --hlog latencies.hlog")]
    Demo(demo::DemoArgs),
    /// Run a drun script
    #[command(after_help = "\
A script has a command a line:
  create
  install ID MODULE ARG     (also: reinstall, upgrade)
  ingress ID METHOD ARG     (also: query)
ARG is 0xHEX or \"text\" with \\xHH, \\bBBBBBBBB, \\\" and \\\\. MODULE is relative to the script. A line with
`#` is a comment; `# APPLICATION-SUBNET` chooses an application subnet. The canister of the start is
rwlgt-iiaaa-aaaaa-aaaaa-cai (22ajg-aqaaa-aaaap-adukq-cai on an application subnet).

Examples:
  bulkhead drun counter.drun
  bulkhead drun --mode shadow --report messages.jsonl counter.drun
  bulkhead drun --record traffic.log counter.drun")]
    Drun(DrunArgs),
    /// Record the ordered input of a subnet, with its results, for `replay`
    #[command(after_help = "\
Runs a drun script, with its output, or without one the demo, and writes a log of all that a subnet's
results depend on: its limits and prices, each round's time and random seed, each message of a user
with what makes its id (refused ones too), each query, each canister that the operator made. Beside
the input stands what came of it: answers, instructions, written pages, calls, cycles, state roots.

Every whole round is with the operating system before the next one starts. A recording that is killed
can be replayed up to its last whole round; one that ends in good order is also written to the disk.
A log holds arguments and the start of replies in clear text: it is as confidential as they are.

`bulkhead drun --record LOG` and `bulkhead demo --record LOG` do the same, with their own options.

Examples:
  bulkhead record traffic.log counter.drun
  bulkhead record traffic.log --mode sandboxed counter.drun
  bulkhead record traffic.log --quick")]
    Record(record::RecordArgs),
    /// Run a recorded log again and compare, with the recording or in two modes
    #[command(after_help = "\
Runs the log on a fresh subnet in the mode asked for, and compares message by message with what was
recorded. With --against it runs on a second one too, in that mode, and the two are compared; what was
recorded beside the input then counts for nothing. Ends at the first difference, and names its round,
message, canister, method and field with both values; for memory the page and, with --against, the
first byte. Shows the latencies of what ran, of both modes side by side.

A log that was cut short is replayed up to its last whole round. Nothing in a log is trusted; one that
is damaged, foreign, of another format or of other limits is refused with offset and reason.

Exit codes: 0 equal; 1 different; 2 wrong usage; 3 undecided: the log can't be used or was cut short
(equal up to there), or a node could not run what it asks for.

Examples:
  bulkhead replay traffic.log --mode sandboxed
  bulkhead replay traffic.log --mode in-process --against sandboxed
  bulkhead replay traffic.log --mode shadow --json")]
    Replay(ReplayArgs),
    /// Work with policy files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say which mode is in effect for a subnet, node and canister, and which line of the policy decided
    #[command(after_help = "\
Examples:
  bulkhead explain --config prod.toml --subnet io67a --node cp7d4
  bulkhead explain --config prod.toml --subnet io67a --node cp7d4 --canister rrkah-fqaaa-aaaaa-aaaaq-cai
  bulkhead explain --config prod.toml --subnet io67a --node cp7d4 --at 2027-03-01 --json")]
    Explain(policy::ExplainArgs),
    /// Work with the sandbox
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Print the version of this program and of what it carries
    #[command(after_help = "Example:\n  bulkhead version --json")]
    Version {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    fn runs_canisters(&self) -> bool {
        match self {
            Self::Demo(_) | Self::Drun(_) | Self::Record(_) | Self::Replay(_) => true,
            // It runs none, and looks at workers with the rights that a node has.
            Self::Sandbox(_) => true,
            Self::Config(_) | Self::Explain(_) | Self::Version { .. } => false,
        }
    }
}

#[derive(Debug, Subcommand)]
enum SandboxCommand {
    /// Say what confines the sandbox's processes on this machine, and how that was seen
    #[command(after_help = "\
Launches workers as the node does, looks at one from outside, and has others do what they must not be
able to do. Prints each layer of confinement: whether it is required, wanted or taken where there is
one, whether it is on, and what showed that; then what of the machine matters beside them. The last
line says what it comes to, and what to do. Run it as the user and in the place that the node runs in.

Exit codes: 0 full (at most layers are off that are taken where there is one); 3 reduced: a layer is
off that is wanted; 1 refused: one is off that is required, and nothing would run sandboxed.

Examples:
  bulkhead sandbox report
  bulkhead sandbox report --json")]
    Report {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a policy file and list every fault with its line and column
    #[command(
        after_help = "Examples:\n  bulkhead config check prod.toml\n  bulkhead config check prod.toml --json"
    )]
    Check {
        /// The policy file
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print a policy file with what holds where it is silent, and where each value came from
    #[command(after_help = "\
The output is a policy file with the same meaning on this machine.

Example:
  bulkhead config show prod.toml")]
    Show {
        /// The policy file
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of policy files, for editors
    #[command(after_help = "Example:\n  bulkhead config schema > bulkhead.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
struct DrunArgs {
    /// Where canister code runs
    #[arg(long, value_enum, default_value = "in-process")]
    mode: ModeArg,
    /// Write a JSON object a line for each executed message to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Record the run into this file, for `bulkhead replay`
    #[arg(long, value_name = "LOG")]
    record: Option<PathBuf>,
    /// The script
    script: PathBuf,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// The log
    #[arg(value_name = "LOG")]
    file: PathBuf,
    /// Where canister code runs
    #[arg(long, value_enum, default_value = "in-process")]
    mode: ModeArg,
    /// Compare with this mode instead of with the recording
    #[arg(long, value_enum, value_name = "MODE")]
    against: Option<ModeArg>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// A mode, as given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// In the node's own process
    InProcess,
    /// In a sandbox process for each canister
    Sandboxed,
    /// In both; the in-process result counts, differences are reported
    Shadow,
}

impl From<ModeArg> for rollout::Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::InProcess => Self::InProcess,
            ModeArg::Sandboxed => Self::Sandboxed,
            ModeArg::Shadow => Self::Shadow,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Said on standard error as it stands.
    #[error("{0}")]
    Failed(String),
    /// The reader of our output went away: nothing is said.
    #[error("output closed")]
    OutputClosed,
    /// Already said on standard output: only the exit code is left.
    #[error("failed")]
    Reported,
    /// Already said on standard output: the sandbox is not all that it should be.
    #[error("reduced")]
    Reduced,
    /// Neither ok nor failed can be said. The text says why, on standard error.
    #[error("{0}")]
    Undecided(String),
}

impl CommandError {
    /// Writing the answer to standard output failed.
    #[must_use]
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(format!("could not write to standard output: {error}")),
        }
    }
}

/// Runs the command that `arguments` (program name first) ask for.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed output is no reason to say more.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if cli.command.runs_canisters()
        && let Err(error) = give_up_privileges()
    {
        let _ = writeln!(io::stderr(), "error: could not give up privileges: {error}");
        return ExitCode::FAILURE;
    }
    if let Some(filter) = cli.log {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_span_events(FmtSpan::CLOSE)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
            .init();
    }
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CommandError::Failed(what)) => {
            let _ = writeln!(io::stderr(), "error: {what}");
            ExitCode::FAILURE
        }
        Err(CommandError::Undecided(why)) => {
            let _ = writeln!(io::stderr(), "undecided: {why}");
            ExitCode::from(3)
        }
        Err(CommandError::Reduced) => ExitCode::from(3),
        Err(CommandError::OutputClosed | CommandError::Reported) => ExitCode::FAILURE,
    }
}

/// Starts the launchers while this process has the rights that this takes, and gives up all that it doesn't need to
/// watch over workers. Root's right to read everybody's files goes with it.
fn give_up_privileges() -> io::Result<()> {
    // Without launchers there may still be work in-process: who needs them asks again, and hears why.
    let _said_later = crate::image::launchers();
    sandbox_os::privileges::give_up()
}

fn dispatch(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Drun(arguments) => drun::run(&drun::DrunOptions {
            script: &arguments.script,
            mode: arguments.mode.into(),
            report: arguments.report.as_deref(),
            record: arguments.record.as_deref(),
        }),
        Command::Record(arguments) => record::run(&arguments),
        Command::Replay(ReplayArgs { file, mode, against, json }) => {
            replay::run(&file, mode.into(), against.map(Into::into), json)
        }
        Command::Config(ConfigCommand::Check { file, json }) => policy::check(&file, json),
        Command::Config(ConfigCommand::Show { file, json }) => policy::show(&file, json),
        Command::Config(ConfigCommand::Schema) => policy::schema(),
        Command::Explain(arguments) => policy::explain(&arguments),
        Command::Sandbox(SandboxCommand::Report { json }) => confinement::report(json),
        Command::Version { json } => version::print(json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
