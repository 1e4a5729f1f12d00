//! Runs the commands of a script against a node, and prints what drun prints.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use execution::outcome::LogLine;
use execution::{Executed, Ingress, IngressStatus, MessageId, Nanoseconds, Principal, UserError};

use super::report::Report;
use super::script::{Call, Command, InstallMode, Line, Script, SyntaxError};
use super::{MODULE_BYTES_MAX, read_bounded, write_line};
use crate::{Node, management};

/// Rounds that a pending message gets before the script goes on without its answer.
pub const ROUNDS_PER_MESSAGE_MAX: u32 = 10_000;

/// Rounds in a row in which the node may fail to run a canister before the script is given up.
const FAILED_ROUNDS_MAX: u32 = 3;

/// How long a round's comparisons are waited for, so that none is dropped for want of room.
const SHADOW_PATIENCE: Duration = Duration::from_secs(60);

const FIRST_ROUND: Nanoseconds = 1_620_328_630_000_000_000;
const ROUND: Nanoseconds = 1_000_000_000;
const FIRST_CANISTER_CYCLES: execution::Cycles = 1_000_000_000_000_000;
const EOP_SECTION: &str = "enhanced-orthogonal-persistence";

/// Why a script was given up. What canisters answer is never a reason.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Standard output.
    #[error("could not write the output: {0}")]
    Output(io::Error),
    /// The report file.
    #[error("could not write the report: {0}")]
    Report(io::Error),
    /// The log of the recording.
    #[error("could not record: {0}")]
    Record(String),
    /// The node could not execute a message; nothing of it was committed.
    #[error("line {line}: the node could not run canister {canister}: {cause}")]
    Stuck {
        /// Line of the command.
        line: usize,
        /// The canister whose message waits.
        canister: Principal,
        /// What failed around it.
        cause: String,
    },
    /// The canister that exists from the start could not be made.
    #[error("could not create the first canister: {0}")]
    Start(UserError),
}

/// The module files of a script, read before anything runs.
#[derive(Debug, Default)]
pub struct Modules(HashMap<PathBuf, Arc<[u8]>>);

impl Modules {
    /// Reads each module once; paths are relative to `folder`.
    ///
    /// # Errors
    /// The first line whose module can't be read.
    pub fn load(script: &Script, folder: &Path) -> Result<Self, SyntaxError> {
        let mut modules = HashMap::new();
        for line in &script.lines {
            let Command::Install { module, .. } = &line.command else { continue };
            if modules.contains_key(module) {
                continue;
            }
            let path = folder.join(module);
            let bytes = read_bounded(&path, MODULE_BYTES_MAX).map_err(|error| SyntaxError {
                line: line.number,
                what: format!("could not read module {}: {error}", path.display()),
            })?;
            modules.insert(module.clone(), bytes.into());
        }
        Ok(Self(modules))
    }
}

/// A script in progress.
pub struct Driver<W, R> {
    node: Node,
    out: W,
    report: Option<Report<R>>,
    rounds: u64,
    messages: u64,
    state_root: [u8; 32],
}

impl<W: Write, R: Write> Driver<W, R> {
    /// Makes the canister that exists from the start and prints its line.
    ///
    /// # Errors
    /// The canister can't be made, or the output can't be written.
    pub fn new(mut node: Node, mut out: W, report: Option<Report<R>>) -> Result<Self, DriverError> {
        let anonymous = Principal::anonymous();
        let first = node.create_canister(anonymous, FIRST_CANISTER_CYCLES).map_err(DriverError::Start)?;
        print_reply(&mut out, "ingress Completed", &management::canister_id_record(first))?;
        let state_root = node.state_root();
        Ok(Self { node, out, report, rounds: 0, messages: 0, state_root })
    }

    /// Runs one command.
    ///
    /// # Errors
    /// The output, report or log can't be written, or the node can't execute.
    ///
    /// # Panics
    /// If `modules` isn't of the script that `line` is from.
    pub fn step(&mut self, line: &Line, modules: &Modules) -> Result<(), DriverError> {
        self.command(line, modules)?;
        self.node.recording_failure().map_or(Ok(()), |failure| Err(DriverError::Record(failure)))
    }

    fn command(&mut self, line: &Line, modules: &Modules) -> Result<(), DriverError> {
        let management = Principal::management_canister();
        match &line.command {
            Command::Create => {
                let arg = management::provisional_create();
                self.ingress(line.number, management, "provisional_create_canister_with_cycles", arg)
            }
            Command::Install { mode, canister, module, arg } => {
                let module = &modules.0[module];
                let keep_heap = *mode == InstallMode::Upgrade && self.has_persistent_heap(module);
                let arg = management::install_code(*mode, *canister, module, arg, keep_heap);
                self.ingress(line.number, management, "install_code", arg)
            }
            Command::Ingress(Call { canister, method, arg }) => {
                self.ingress(line.number, *canister, method, arg.clone())
            }
            Command::Query(call) => self.query(call),
        }
    }

    /// Ends the script: writes out the report, and gives the node back.
    ///
    /// # Errors
    /// The report can't be written.
    pub fn finish(self) -> Result<Node, DriverError> {
        self.report.map_or(Ok(()), Report::finish).map_err(DriverError::Report)?;
        Ok(self.node)
    }

    /// Whether the module says that its heap survives upgrades. A module that doesn't compile is the
    /// system's to refuse.
    fn has_persistent_heap(&self, module: &[u8]) -> bool {
        match self.node.compile(module) {
            Ok(Ok(module)) => {
                module.interface.custom_sections.get(EOP_SECTION).is_some_and(|section| !section.public)
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    fn ingress(
        &mut self,
        line: usize,
        receiver: Principal,
        method: &str,
        arg: Vec<u8>,
    ) -> Result<(), DriverError> {
        self.messages += 1;
        let message = Ingress {
            sender: Principal::anonymous(),
            receiver,
            method: method.to_owned(),
            arg: arg.into(),
            nonce: self.messages.to_be_bytes().to_vec(),
        };
        let answer = match self.node.submit(message) {
            Ok(message) => self.await_answer(line, &message)?,
            Err(refused) => Err(refused),
        };
        match answer {
            Ok(reply) => print_reply(&mut self.out, "ingress Completed", &reply),
            Err(error) => write_line(&mut self.out, &format!("ingress Err: {error}")),
        }
    }

    /// Runs rounds until the message is answered.
    fn await_answer(
        &mut self,
        line: usize,
        message: &MessageId,
    ) -> Result<Result<Arc<[u8]>, UserError>, DriverError> {
        let mut failed_rounds = 0;
        for _ in 0..ROUNDS_PER_MESSAGE_MAX {
            let report = self.node.round(FIRST_ROUND + self.rounds * ROUND, seed(self.rounds));
            self.rounds += 1;
            self.node.settle_shadow(SHADOW_PATIENCE);
            for executed in &report.executed {
                self.record(executed)?;
            }
            match self.node.status(message) {
                IngressStatus::Replied(reply) => return Ok(Ok(reply)),
                IngressStatus::Rejected(error) => return Ok(Err(error)),
                // An answer is there until the next round at least.
                IngressStatus::Unknown
                | IngressStatus::Received
                | IngressStatus::Processing
                | IngressStatus::Done => {}
            }
            failed_rounds = if report.failures.is_empty() { 0 } else { failed_rounds + 1 };
            if let Some(failure) = report.failures.first().filter(|_| failed_rounds >= FAILED_ROUNDS_MAX) {
                let cause = failure.error.clone();
                return Err(DriverError::Stuck { line, canister: failure.canister, cause });
            }
        }
        Ok(Err(UserError::new(
            execution::ErrorCode::INGRESS_EXPIRED,
            format!("the message was not answered within {ROUNDS_PER_MESSAGE_MAX} rounds"),
        )))
    }

    fn query(&mut self, call: &Call) -> Result<(), DriverError> {
        let answer = self.node.query(Principal::anonymous(), call.canister, &call.method, &call.arg);
        self.node.settle_shadow(SHADOW_PATIENCE);
        for executed in &answer.executed {
            self.record(executed)?;
        }
        match answer.result {
            Ok(reply) => print_reply(&mut self.out, "Ok", &reply),
            Err(error) => write_line(&mut self.out, &format!("Err: {error}")),
        }
    }

    /// Prints what a message printed, and reports it.
    fn record(&mut self, executed: &Executed) -> Result<(), DriverError> {
        for line in printed(executed) {
            write_line(&mut self.out, &format!("debug.print: {}", String::from_utf8_lossy(&line.text)))?;
        }
        let Some(report) = &mut self.report else { return Ok(()) };
        self.state_root = executed.state_root.unwrap_or(self.state_root);
        let measured = self.node.measured(executed.invocation);
        report.append(executed, measured, &self.state_root).map_err(DriverError::Report)
    }
}

/// The lines that the canister printed: a trap's own record, always the last, isn't one.
fn printed(executed: &Executed) -> &[LogLine] {
    match (&executed.ended, executed.logs.split_last()) {
        (execution::Ended::Trap(_), Some((_, printed))) => printed,
        _ => &executed.logs,
    }
}

fn seed(round: u64) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&round.to_be_bytes());
    seed
}

fn print_reply(out: &mut impl Write, prefix: &str, reply: &[u8]) -> Result<(), DriverError> {
    write_line(out, &format!("{prefix}: Reply: 0x{}", hex::encode(reply)))
}
