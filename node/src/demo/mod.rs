//! `bulkhead demo`: an embedded node with real canisters under load, while its mode is switched.

mod latencies;
mod output;
mod switch;

use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rollout::Mode;

use crate::cli::CommandError;
use crate::hangup::ReloadOnHangup;
use crate::load::{Clock, Counts, Load, SHIPPED};
use crate::log::Reader;
use crate::replay::{Play, Verdict};
use crate::{Node, NodeOptions, PolicySource, Preset, recording};
use latencies::LatencyLog;
use output::{NeverSwitched, Progress, Summary};
use switch::PolicyFile;

/// Messages of a whole run, and of a quick one.
const MESSAGES: u64 = 20_000;
const MESSAGES_QUICK: u64 = 3_000;
/// Messages a second unless the command line says otherwise.
const RATE: u32 = 500;

/// What the demo may be told.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Send 3,000 messages instead of 20,000
    #[arg(long)]
    quick: bool,
    /// Messages a second, sent whether or not earlier ones are answered
    #[arg(long, value_name = "N", default_value_t = RATE, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Write the latencies as an HdrHistogram log, two intervals a second and a tag for each mode
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Record the run into this file, for `bulkhead replay`
    #[arg(long, value_name = "LOG")]
    record: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl DemoArgs {
    /// A demo that is recorded into `log`.
    #[must_use]
    pub fn recording(log: PathBuf, quick: bool) -> Self {
        Self { quick, rate: RATE, hlog: None, record: Some(log), json: false }
    }
}

/// How long the last comparisons of shadow are waited for.
const SETTLE: Duration = Duration::from_secs(10);

/// The plan: what happens after which share of the messages, in percent.
const PLAN: [(u64, Step); 5] = [
    (20, Step::Switch(Mode::Shadow)),
    (40, Step::Switch(Mode::Sandboxed)),
    (55, Step::Kill),
    (65, Step::Kill),
    (80, Step::Switch(Mode::InProcess)),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Switch(Mode),
    Kill,
}

/// Runs the demo.
///
/// # Errors
/// The node doesn't start, a message was lost or applied twice, a switch didn't take effect, or the state
/// differs from that of the run that never switched.
pub fn run(arguments: &DemoArgs) -> Result<(), CommandError> {
    let stop = stop_flag()?;
    let messages = if arguments.quick { MESSAGES_QUICK } else { MESSAGES };
    let progress = Progress::new(messages, arguments.json);
    let summary = start(arguments.record.as_deref()).map_err(CommandError::Failed).and_then(|started| {
        crate::node::on_executor_stack(move || {
            let summary = play(arguments, messages, started, &progress, &stop);
            progress.clear();
            let closed = progress.is_closed();
            summary.map_err(
                |error| if closed { CommandError::OutputClosed } else { CommandError::Failed(error) },
            )
        })
    })?;
    summary.print(arguments.json).map_err(|error| CommandError::output(&error))?;
    if summary.passed() { Ok(()) } else { Err(CommandError::Reported) }
}

/// Set by Ctrl-C and by SIGTERM; the second Ctrl-C ends the program at once.
fn stop_flag() -> Result<Arc<AtomicBool>, CommandError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| CommandError::Failed(format!("could not watch for Ctrl-C: {error}")))?;
    }
    Ok(stop)
}

/// A demo before its first message.
struct Started {
    policy: PolicyFile,
    node: Node,
    /// The log that everything is recorded in.
    log: File,
}

fn start(record: Option<&Path>) -> Result<Started, String> {
    let policy = PolicyFile::create(Mode::InProcess)?;
    let mut node = Node::new(NodeOptions {
        policy: PolicySource::File {
            path: policy.path().to_owned(),
            subnet: switch::SUBNET.to_owned(),
            node: switch::NODE.to_owned(),
            generations: None,
        },
        ..NodeOptions::fixed(Mode::InProcess, Preset::Application)
    })
    .map_err(|error| error.to_string())?;
    let log = match record {
        Some(path) => recording::create(path).map_err(|error| error.to_string())?,
        // For the run that never switches. Without a name, so that it goes when this process does.
        None => {
            tempfile::tempfile().map_err(|error| format!("could not make a file for the log: {error}"))?
        }
    };
    let recorded = log.try_clone().map_err(Into::into).and_then(|log| node.record(log));
    recorded.map_err(cannot_record)?;
    Ok(Started { policy, node, log })
}

fn cannot_record(error: impl std::fmt::Display) -> String {
    format!("could not record: {error}")
}

fn play(
    arguments: &DemoArgs,
    messages: u64,
    started: Started,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Summary, String> {
    let Started { policy, mut node, log } = started;
    let _reloads = ReloadOnHangup::start(Arc::clone(node.policy()))
        .map_err(|error| format!("could not listen for SIGHUP: {error}"))?;
    let began = Instant::now();
    progress.say(&format!("policy file {}", policy.path().display()));
    let mut clock = Clock::default();
    let mut load = Load::set_up(&mut node, &mut clock, arguments.rate, messages, |name| {
        progress.say(name);
        !stop.load(Ordering::Relaxed) && !progress.is_closed()
    })?;
    progress.say(&format!(
        "{} canisters installed in {:.1} s; {messages} messages at {} a second",
        SHIPPED.len(),
        began.elapsed().as_secs_f64(),
        arguments.rate
    ));
    let hlog = arguments.hlog.as_deref().map(|path| LatencyLog::create(path, node.recorder()));
    let mut hlog = hlog.transpose()?;
    let mut plan = PLAN.iter().peekable();
    let mut switches = switch::Switches::new(policy);
    load.start();
    while !load.is_over() && !stop.load(Ordering::Relaxed) && !progress.is_closed() {
        while let Some((_, step)) = plan.next_if(|(percent, _)| load.sent() * 100 >= messages * percent) {
            match step {
                Step::Switch(mode) => {
                    progress.say(&format!("after {} messages: policy file says {mode}", load.sent()));
                    switches.save(*mode)?;
                }
                Step::Kill => progress.say(&switches.kill_a_worker(&node)),
            }
        }
        let report = load.step(&mut node, &mut clock)?;
        hlog.as_mut().map_or(Ok(()), |log| log.step(node.recorder()))?;
        node.recording_failure().map_or(Ok(()), |failure| Err(cannot_record(failure)))?;
        if let Some(line) = switches.observe(&node, &report) {
            progress.say(&line);
        }
        progress.advance(load.answered());
    }
    let interrupted = !load.is_over();
    load.drain(
        &mut node,
        &mut clock,
        if interrupted { Duration::from_secs(2) } else { Duration::from_secs(30) },
    )?;
    // What isn't compared by then is missing from the counts, which say so.
    let _settled = node.settle_shadow(SETTLE);
    // They are queries, which the report counts: so they come before the end of the log.
    let counts = load.counts(&node)?;
    hlog.as_mut().map_or(Ok(()), |log| log.write(node.recorder()))?;
    finish((node, log), (&load, counts), switches, arguments, interrupted, progress)
}

fn finish(
    (mut node, log): (Node, File),
    (load, counts): (&Load, Counts),
    switches: switch::Switches,
    arguments: &DemoArgs,
    interrupted: bool,
    progress: &Progress,
) -> Result<Summary, String> {
    let state_root = node.state_root();
    let shadow = node.shadow_counts();
    let executions = node.recorder().table();
    let (confinement, layers_off) = (node.confinement(), node.layers_off());
    let recorded = node.finish_recording().map_err(cannot_record)?.unwrap_or_default();
    let twin = node.twin(Mode::InProcess).map_err(|error| error.to_string())?;
    // Its sandbox ends before the comparison takes the cores.
    drop(node);
    let never_switched = if interrupted {
        None
    } else {
        progress.say(&format!("the same {} rounds again, in-process throughout", recorded.rounds));
        Some(run_again(twin, log)?)
    };
    Ok(Summary {
        rate: arguments.rate,
        seconds: load.seconds(),
        recorded,
        recorded_in: arguments.record.clone(),
        counts,
        answers: load.answers().table(),
        executions,
        shadow,
        records: switches.into_records(),
        confinement,
        layers_off,
        worst_gap: load.worst_gap(),
        state_root,
        never_switched,
        interrupted,
    })
}

/// Replays the log on a node that never switches.
fn run_again(node: Node, mut log: File) -> Result<NeverSwitched, String> {
    let cannot_read = |error: &dyn std::fmt::Display| format!("could not read the log again: {error}");
    log.rewind().map_err(|error| cannot_read(&error))?;
    let mut play = Play::beside_recording(node, "never switched");
    let verdict = Reader::begin(BufReader::new(log)).and_then(|mut log| play.run(&mut log, None));
    let difference = match verdict.map_err(|error| cannot_read(&error))? {
        Verdict::Equal => None,
        Verdict::Different(difference) => Some(difference.to_string()),
        Verdict::Undecided(why) => Some(why),
    };
    Ok(NeverSwitched { state_root: play.nodes().0.state_root(), difference })
}
