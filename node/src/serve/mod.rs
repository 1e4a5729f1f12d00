//! `bulkhead serve`: the nodes of a subnet in one process run the same ordered messages, in the mode that the policy
//! file says for each.
//!
//! The orderer puts messages into rounds. A round is run by every node, compared, written to the input log and synced
//! there; only then is a message of it acknowledged or an answer shown. A process that is killed at any moment comes
//! back with everything that it acknowledged, by running the log again.

mod admin;
mod ask;
pub mod client;
mod commands;
mod dashboard;
mod differences;
mod events;
mod http;
mod metrics;
mod nodes;
mod orderer;
mod problem;
mod recovery;
mod rollouts;
mod signals;
mod state_dir;
mod status;
mod summary;
mod view;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use rollout::Mode;

use crate::bundle::Before;
use crate::cli::CommandError;
use crate::load::{Clock, Load, Past};
use crate::{Node, NodeOptions, PolicySource, Preset};
use commands::Commands;
use http::Listeners;
use nodes::Nodes;
use recovery::Recovered;
use rollouts::Driver;
use signals::Stop;
use state_dir::StateDir;
use status::{Board, NodeView, Phase};
use summary::Summary;

/// Nodes that one process simulates at most: a subnet of the usual size.
const NODES_MAX: i64 = 13;

/// What `serve` may be told.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The policy file, read again whenever it changes
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The directory of the input log, made if it is absent (its parent has to be there)
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The subnet's id, as in the policy file
    #[arg(long, value_name = "ID", default_value = "local")]
    subnet: String,
    /// Nodes of the subnet in this process: n1, n2, ... in the policy file
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=NODES_MAX))]
    nodes: u8,
    /// Messages that the process sends to itself
    #[arg(long, value_enum, value_name = "PROFILE", default_value = "none")]
    load: LoadProfile,
    /// Messages a second of the load, sent whether or not earlier ones are answered
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Size of the input log in bytes from which on no message is taken in and no round is run
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 30)]
    log_max: u64,
    /// A loopback address and port to read status, latencies and metrics from, e.g. 127.0.0.1:8080
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// The admin socket [default: admin.sock in the state directory]
    #[arg(long, value_name = "PATH")]
    admin: Option<PathBuf>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LoadProfile {
    /// Nothing
    None,
    /// Messages to eleven real canisters at a fixed rate, those of the demo
    Steady,
}

/// Serves until it is told to stop.
///
/// # Errors
/// It can't start, or had to stop the line.
pub fn run(arguments: &ServeArgs) -> Result<(), CommandError> {
    let stop = Stop::on_signals().map_err(CommandError::Failed)?;
    let served = match crate::node::on_executor_stack(|| serve(arguments, &stop)) {
        Ok(served) => served,
        Err(why) if stop.is_set() => {
            say(&format!("stopped before it served: {why}"));
            return Ok(());
        }
        Err(why) => return Err(CommandError::Failed(why)),
    };
    // Whoever read the output may be gone: the work is done all the same.
    let _ = io::stdout().write_all(served.summary.to_string().as_bytes());
    match served.failed {
        None => Ok(()),
        Some(why) => Err(CommandError::Failed(why)),
    }
}

/// How it ended.
struct Served {
    summary: Summary,
    /// Why it could not go on.
    failed: Option<String>,
}

fn serve(arguments: &ServeArgs, stop: &Arc<Stop>) -> Result<Served, String> {
    let state = StateDir::open(&arguments.state)?;
    let log = state.input_log(Preset::Application)?;
    let nodes = start(arguments)?;
    let views =
        nodes.iter().zip(1..).map(|(node, number)| NodeView::new(number, node.instruments())).collect();
    // Before a message is run again, from which more may be found.
    let found_before = Before::look(&evidence(arguments).join("divergences"));
    let board = Arc::new(Board::new(views, arguments.state.clone(), found_before));
    stop.reload_on_hangup(&board);
    let admin = arguments.admin.clone().unwrap_or_else(|| arguments.state.join("admin.sock"));
    let (commands, asked) = commands::queue();
    // Before anybody can ask for the audit log: it is there from then on.
    let driver = Driver::start(
        Arc::clone(&board),
        Arc::clone(stop),
        &arguments.subnet,
        &arguments.config,
        &arguments.state,
    )?;
    listen(arguments, &admin, &board, commands)?;
    let Recovered { nodes, past } = recovery::recover(nodes, &log, &board, stop)?;
    let recording = log.resume()?;
    let clock = Clock::after(nodes[0].state().time);
    board.nodes().iter().for_each(|view| view.instruments.clear());
    let driver = driver.run(asked)?;
    let mut nodes = Nodes::new(nodes, recording, arguments.log_max, Arc::clone(&board), Arc::clone(stop));
    let (load, failed) = go_on(arguments, &mut nodes, clock, past, &board, stop);
    if let Some(why) = &failed {
        board.set_phase(Phase::Halted(why.clone()));
        say(&format!("HALTED: {why}"));
        stop.wait();
    }
    board.set_phase(Phase::Stopping);
    // It ends by the same signal, within a tick.
    let _ = driver.join();
    // A round that was not committed is in no book: what a node has run of it can't be held against them.
    let summary = Summary::new(&nodes, load.as_ref().filter(|_| failed.is_none()), &board);
    let finished = nodes.finish(failed.is_none());
    // Before the lock goes: after it, the name is another process's.
    let _gone_already = std::fs::remove_file(admin);
    drop(state);
    Ok(Served { summary, failed: failed.or(finished.err()) })
}

/// Starts the interface, and says where it is.
fn listen(arguments: &ServeArgs, admin: &Path, board: &Arc<Board>, commands: Commands) -> Result<(), String> {
    let http = arguments.http.map(http::bind).transpose()?;
    let address = http.as_ref().map(TcpListener::local_addr).transpose();
    let address = address.map_err(|error| format!("--http: which address it is can't be told: {error}"))?;
    http::start(Listeners { http, admin: admin::bind(admin)? }, Arc::clone(board), commands)?;
    say(&format!("admin socket {}", admin.display()));
    if let Some(address) = address {
        say(&format!("http://{address}/"));
    }
    Ok(())
}

/// The state directory, as it is told to those who are in another one.
fn evidence(arguments: &ServeArgs) -> PathBuf {
    std::path::absolute(&arguments.state).unwrap_or_else(|_| arguments.state.clone())
}

/// The nodes, with nothing in them.
fn start(arguments: &ServeArgs) -> Result<Vec<Node>, String> {
    let policy = |number: u8| PolicySource::File {
        path: arguments.config.clone(),
        subnet: arguments.subnet.clone(),
        node: format!("n{number}"),
        generations: Some(arguments.state.join("policies").join(format!("n{number}"))),
    };
    let options = NodeOptions {
        policy: policy(1),
        evidence: Some(evidence(arguments)),
        ..NodeOptions::fixed(Mode::InProcess, Preset::Application)
    };
    let mut nodes = vec![Node::new(options).map_err(|error| error.to_string())?];
    for number in 2..=arguments.nodes {
        nodes.push(nodes[0].peer(policy(number)).map_err(|error| format!("node n{number}: {error}"))?);
    }
    Ok(nodes)
}

/// Sets the load up and orders its messages until it is time to stop. Gives why it could not go on.
fn go_on(
    arguments: &ServeArgs,
    nodes: &mut Nodes,
    mut clock: Clock,
    past: Past,
    board: &Board,
    stop: &Stop,
) -> (Option<Load>, Option<String>) {
    let mut load = match arguments.load {
        LoadProfile::None => None,
        LoadProfile::Steady => {
            board.set_phase(Phase::SettingUp);
            let tell = |name: &str| {
                say(name);
                !stop.is_set()
            };
            match Load::resume(nodes, &mut clock, past, (arguments.rate, u64::MAX), tell) {
                Ok(load) => Some(load),
                Err(_) if stop.is_set() && !nodes.is_halted() => return (None, None),
                Err(error) => return (None, Some(error)),
            }
        }
    };
    let failed = orderer::run(nodes, load.as_mut(), &mut clock, board, stop).err();
    (load, failed)
}

/// Tells whoever started the process. That nobody reads it is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
