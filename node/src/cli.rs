//! The command line: what may be asked for, and the way from an answer to an exit code.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::{audit, compare, confinement, demo, drun, plan, policy, record, replay, serve, verdict, version};

/// Runs Internet Computer canisters in the node's process or in a sandbox process each, with equal results.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Write log lines to standard error, e.g. `info`, `rollout=debug` or `off`; spans name message, canister and mode.
    /// Without it `serve` writes warnings and errors, and all other commands nothing
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
  bulkhead serve --config prod.toml --state /var/lib/bulkhead --load steady
  bulkhead compare latencies.hlog --limit p99=1.50
  bulkhead audit verify --state /var/lib/bulkhead
  bulkhead config check prod.toml
  bulkhead explain --config prod.toml --subnet io67a --node cp7d4
  bulkhead sandbox report

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 undecided (replay: the log or the node can't say; status
--wait: not there in time) or reduced (sandbox report), 4 rolled back, 5 inconclusive (not enough is
known for a verdict), 6 denied.";

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
    /// Run the nodes of a subnet until told to stop; what is acknowledged survives a kill
    #[command(after_help = "\
Runs --nodes N nodes (n1, n2, ...) of one subnet in this process on the same ordered messages, each in
the mode that the policy file says for it. A round is run by every node, their state roots and roots of
the certified state are compared, and the round goes to DIR/input.log and onto the disk; only then is a
message of it acknowledged. A difference between nodes stops the line: no further round is run, and the
exit code is 1. A node that can't run a canister tries the whole round again until it can.

A start with a log replays it, compared with what was recorded, and goes on; what a killed process left
after its last whole round is cut off. A damaged log is refused and left as it is. At --log-max bytes no
message is taken in and no round is run any more.

SIGINT and SIGTERM end it in good order (exit code 0), a second one at once (1). SIGHUP reads the policy
file again.

Examples:
  bulkhead serve --config prod.toml --state /var/lib/bulkhead
  bulkhead serve --config prod.toml --state /var/lib/bulkhead --load steady --rate 200 --nodes 2")]
    Serve(serve::ServeArgs),
    /// Show what a running node does
    #[command(after_help = "\
With ID, shows that rollout. --wait ends when it is completed, rolled back or held.

Exit codes: 0 shown (--wait: completed or finished); 1 no node answers on the socket, or there is no
such rollout; --wait: 3 not there within --timeout, 4 rolled back, 5 paused.

Examples:
  bulkhead status sandbox-2026q4 --admin /var/lib/bulkhead/admin.sock --wait --timeout 30m
  bulkhead status --admin /var/lib/bulkhead/admin.sock
  bulkhead status --admin /var/lib/bulkhead/admin.sock --watch
  bulkhead status --admin /var/lib/bulkhead/admin.sock --json")]
    Status(serve::client::StatusArgs),
    /// List the differences that shadow has found between the modes
    #[command(subcommand)]
    Divergences(DivergencesCommand),
    #[command(flatten)]
    Rollout(RolloutCommand),
    /// Judge a candidate's latencies, traps and divergences against limits
    #[command(after_help = "\
Reads interval logs, puts their intervals into blocks of equal time, and judges each quantile that has
a limit, for each kind of message. Three verdicts: PASS, shown within the limit with 95 % confidence;
FAIL, shown above it, which at the limit happens in 1 % of steps at most, over all planned looks and
guards; INCONCLUSIVE, neither, with what is missing. No data is INCONCLUSIVE.

A block is compared with the other arm's block of the same time (node-split, percent) or with its
neighbour (switchback, aa); one without such a partner, or an interval longer than a block, is left
out. Anything is said from 10 blocks and 100 messages beyond the quantile on,
in each arm: 200 for p50, 10,000 for p99.

Exit codes: 0 every guard passes; 1 one fails, or a log can't be used; 2 wrong usage; 5 inconclusive.

Examples:
  bulkhead compare latencies.hlog --control shadow-control --candidate shadow-candidate --block 1s
  bulkhead compare a.hlog b.hlog --kind update --kind query --limit p50=1.30 --limit p99.9=2
  bulkhead compare node.hlog --design switchback --look 3/12 --record verdict.json
  bulkhead compare node.hlog --traps 12/120000,15/119000 --divergences 0/300000")]
    Compare(Box<compare::CompareArgs>),
    /// Recompute a verdict from all that it followed from
    #[command(after_help = "\
Judges the histograms and counts in a record of `bulkhead compare --record` again, with the recorded
seed and method, and compares verdicts, ratios and bounds with what is recorded.

Exit codes: 0 equal; 1 different, or the record can't be used; 2 wrong usage.

Examples:
  bulkhead verdict --recompute verdict.json
  bulkhead verdict --recompute verdict.json --json")]
    Verdict {
        /// The record
        #[arg(long, value_name = "RECORD")]
        recompute: PathBuf,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Read the log of what was done to the rollout, and check that nobody changed it
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Work with policy files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say which mode is in effect for a subnet, node and canister, and which line of the policy decided
    #[command(after_help = "\
Examples:
  bulkhead explain --config prod.toml --subnet io67a --node cp7d4
  bulkhead explain --config prod.toml --subnet io67a --node cp7d4 --canister rrkah-fqaaa-aaaaa-aaaaq-cai
  bulkhead explain --config prod.toml --subnet io67a --node cp7d4 --at 2027-03-01 --json
  bulkhead explain --admin /var/lib/bulkhead/admin.sock --subnet local --node n1")]
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
            Self::Demo(_) | Self::Drun(_) | Self::Record(_) | Self::Replay(_) | Self::Serve(_) => true,
            // It runs none, and looks at workers with the rights that a node has.
            Self::Sandbox(_) => true,
            Self::Compare(_) | Self::Verdict { .. } | Self::Audit(_) => false,
            Self::Divergences(command) => matches!(command, DivergencesCommand::Replay(_)),
            Self::Config(_) | Self::Explain(_) | Self::Status(_) => false,
            Self::Rollout(_) => false,
            Self::Version { .. } => false,
        }
    }
}

/// What may be asked of a rollout on a running node.
#[derive(Debug, Subcommand)]
enum RolloutCommand {
    /// Say what a rollout of a policy file would do on a subnet, step by step
    #[command(after_help = "\
Needs no node. Says for each step which nodes or how many canisters it concerns, how candidate and
control are compared, how often, by which guards, and what the step's chance of a false rollback is.

Examples:
  bulkhead plan --config prod.toml --subnet io67a --nodes 13
  bulkhead plan --config prod.toml --subnet io67a --canister rrkah-fqaaa-aaaaa-aaaaq-cai")]
    Plan(plan::PlanArgs),
    /// Start a rollout: its first step is put in force
    #[command(after_help = VERB_HELP)]
    Start(serve::client::VerbArgs),
    /// Hold a rollout where it is; its guards go on
    #[command(after_help = VERB_HELP)]
    Pause(serve::client::VerbArgs),
    /// Let a paused rollout go on
    #[command(after_help = VERB_HELP)]
    Resume(serve::client::VerbArgs),
    /// Have a rollout go on to its next step
    #[command(after_help = VERB_HELP)]
    Promote(serve::client::PromoteArgs),
    /// Roll back now: the control everywhere, until somebody acknowledges it and tries again
    #[command(after_help = VERB_HELP)]
    Abort(serve::client::VerbArgs),
    /// Acknowledge a rollback
    #[command(after_help = VERB_HELP)]
    Ack(serve::client::VerbArgs),
    /// Prepare another attempt after a rollback that was acknowledged
    #[command(after_help = VERB_HELP)]
    Retry(serve::client::VerbArgs),
    /// Write what a completed rollout came to into the policy file, and end it
    #[command(after_help = VERB_HELP)]
    Finish(serve::client::VerbArgs),
    /// Engage the kill switch of a node, or release it
    #[command(after_help = "\
The switch is the file that [kill_switch] names: without a node, make that file, or remove it.

Examples:
  bulkhead kill on --admin /var/lib/bulkhead/admin.sock --reason INC-490
  bulkhead kill off --admin /var/lib/bulkhead/admin.sock --reason \"INC-490 is over\"")]
    Kill(serve::client::KillArgs),
    /// Stop the line: no rollout goes on to a next step; or let it go on
    #[command(after_help = "\
Examples:
  bulkhead line stop --admin /var/lib/bulkhead/admin.sock --reason \"year end\"
  bulkhead line go --admin /var/lib/bulkhead/admin.sock --reason \"year end is over\"")]
    Line(serve::client::LineArgs),
}

const VERB_HELP: &str = "\
Exit codes: 0 done; 1 it refuses, or no node answers; 2 wrong usage; 6 denied: the policy asks for a
--reason, or the socket is another user's.

Examples:
  bulkhead start sandbox-2026q4 --admin /var/lib/bulkhead/admin.sock --reason \"first attempt\"
  bulkhead promote sandbox-2026q4 --skip-bake --admin /var/lib/bulkhead/admin.sock
  bulkhead abort sandbox-2026q4 --admin /var/lib/bulkhead/admin.sock --reason INC-490
  bulkhead pause sandbox-2026q4 --dry-run --json --admin /var/lib/bulkhead/admin.sock";

#[derive(Debug, Subcommand)]
enum DivergencesCommand {
    /// List them, with what came of running both modes again
    #[command(after_help = "\
Where the two runs of a message differ, both are made again on the same state. confirmed: the sandboxed
one differs again. flaky-candidate: it doesn't; that counts as confirmed. nondeterministic-control: the
in-process one differs from itself. unconfirmed: one of them could not be made again.

Example:
  bulkhead divergences list --admin /var/lib/bulkhead/admin.sock")]
    List(serve::client::DivergencesArgs),
    /// Show one of them whole
    #[command(after_help = "Example:\n  bulkhead divergences show 1 --admin /var/lib/bulkhead/admin.sock")]
    Show {
        /// Its number in the list
        number: usize,
        #[command(flatten)]
        arguments: serve::client::DivergencesArgs,
    },
    /// Run the message of a difference again in both modes, on the state that it had
    #[command(after_help = "\
A node keeps the first of each kind of difference in its state directory: the module, the canister's
memory before the message, and the message. No node is needed to run it again, and it may be taken to
another machine. It holds all that the canister held.

Exit codes: 0 the modes agree (not reproduced); 1 they differ (reproduced); 2 wrong usage; 3 it can't
be said.

Example:
  bulkhead divergences replay /var/lib/bulkhead/divergences/3f0c1a2b4d5e6f70.bundle --runs 10")]
    Replay(crate::bundle::replay::ReplayArgs),
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
    /// Have a running node read its policy file again now, and say what is in force then
    #[command(after_help = "\
Exit codes: 0 it is in force; 1 it is refused, and the last good one stays in force, or no node answers.

Example:
  bulkhead config reload --admin /var/lib/bulkhead/admin.sock")]
    Reload(serve::client::AdminArgs),
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
    /// It can't be done as it was asked for.
    #[error("{0}")]
    Usage(String),
    /// Already said on standard output: not enough is known for a verdict.
    #[error("inconclusive")]
    Inconclusive,
    /// Already said on standard output: the rollout was rolled back.
    #[error("rolled back")]
    RolledBack,
    /// This user may not, or has to say why. The text is for standard error.
    #[error("{0}")]
    Denied(String),
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
    // Whoever runs a node has to hear of a refused policy and an engaged kill switch without having asked for it.
    let by_default = matches!(cli.command, Command::Serve(_)).then(|| EnvFilter::new("warn"));
    if let Some(filter) = cli.log.or(by_default) {
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
        Err(CommandError::Usage(what)) => {
            let _ = writeln!(io::stderr(), "error: {what}");
            ExitCode::from(2)
        }
        Err(CommandError::RolledBack) => ExitCode::from(4),
        Err(CommandError::Inconclusive) => ExitCode::from(5),
        Err(CommandError::Denied(why)) => {
            let _ = writeln!(io::stderr(), "denied: {why}");
            ExitCode::from(6)
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
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Verdict { recompute, json } => verdict::recompute(&recompute, json),
        Command::Audit(command) => audit::run(&command),
        Command::Config(ConfigCommand::Check { file, json }) => policy::check(&file, json),
        Command::Config(ConfigCommand::Reload(arguments)) => serve::client::reload(&arguments),
        Command::Config(ConfigCommand::Show { file, json }) => policy::show(&file, json),
        Command::Config(ConfigCommand::Schema) => policy::schema(),
        Command::Status(arguments) => serve::client::status(&arguments),
        Command::Divergences(DivergencesCommand::List(arguments)) => serve::client::divergences(&arguments),
        Command::Divergences(DivergencesCommand::Show { number, arguments }) => {
            serve::client::divergence(&arguments, number)
        }
        Command::Divergences(DivergencesCommand::Replay(arguments)) => crate::bundle::replay::run(&arguments),
        Command::Rollout(command) => of_rollout(&command),
        Command::Explain(arguments) => policy::explain(&arguments),
        Command::Sandbox(SandboxCommand::Report { json }) => confinement::report(json),
        Command::Version { json } => version::print(json),
    }
}

fn of_rollout(command: &RolloutCommand) -> Result<(), CommandError> {
    use serve::client::{kill, line, promote, verb};
    match command {
        RolloutCommand::Plan(arguments) => plan::run(arguments),
        RolloutCommand::Start(arguments) => verb(arguments, "start"),
        RolloutCommand::Pause(arguments) => verb(arguments, "pause"),
        RolloutCommand::Resume(arguments) => verb(arguments, "resume"),
        RolloutCommand::Promote(arguments) => promote(arguments),
        RolloutCommand::Abort(arguments) => verb(arguments, "abort"),
        RolloutCommand::Ack(arguments) => verb(arguments, "ack"),
        RolloutCommand::Retry(arguments) => verb(arguments, "retry"),
        RolloutCommand::Finish(arguments) => verb(arguments, "finish"),
        RolloutCommand::Kill(arguments) => kill(arguments),
        RolloutCommand::Line(arguments) => line(arguments),
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
