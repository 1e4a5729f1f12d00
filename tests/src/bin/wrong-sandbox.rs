//! Leaves in a state directory what a node leaves there whose sandbox is wrong: a difference of every message that it
//! runs. No node of the product is: its modes give the same.
//!
//! `cargo run --release -p tests --bin wrong-sandbox -- STATE`

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_node::drun::InstallMode;
use bulkhead_node::node::on_executor_stack;
use bulkhead_node::{Node, NodeOptions, Preset, management};
use execution::{
    Backend, BackendError, Execution, Ingress, IngressStatus, Invocation, Outcome, Principal, Snapshot,
};
use in_process::{InProcess, InProcessOptions};
use rollout::Mode;

const COUNTER: &[u8] = include_bytes!("../../canisters/c/counter.wasm");
/// No values.
const EMPTY: &[u8] = b"DIDL\0\0";
/// More rounds than any of the messages takes.
const ROUNDS_MAX: u64 = 100;
const CYCLES: u128 = 1_000_000_000_000_000;

/// Counts an instruction too many in every run.
struct Wrong(InProcess);

impl Backend for Wrong {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        Ok(match self.0.execute(snapshot, invocation)? {
            Execution::Finished(outcome) => Execution::Finished(one_instruction_off(outcome)),
            paused @ Execution::Paused(_) => paused,
        })
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        Ok(one_instruction_off(self.0.query(snapshot, invocation, overlay)?))
    }
}

fn one_instruction_off(outcome: Outcome) -> Outcome {
    Outcome { instructions: outcome.instructions + 1, ..outcome }
}

/// Sends a message, and runs rounds until it is answered.
fn answered(node: &mut Node, receiver: Principal, method: &str, arg: &[u8]) -> Result<(), String> {
    let message = Ingress {
        sender: Principal::anonymous(),
        receiver,
        method: method.to_owned(),
        arg: Arc::from(arg),
        nonce: Vec::new(),
    };
    let id = node.submit(message).map_err(|error| error.to_string())?;
    for round in 1..=ROUNDS_MAX {
        match node.status(&id) {
            IngressStatus::Replied(_) => return Ok(()),
            IngressStatus::Rejected(error) => return Err(error.to_string()),
            IngressStatus::Done
            | IngressStatus::Unknown
            | IngressStatus::Received
            | IngressStatus::Processing => {
                let time = node.state().time.max(1_620_328_630_000_000_000) + round * 1_000_000_000;
                let _report = node.round(time, [1; 32]);
            }
        }
    }
    Err(format!("{method} is not answered after {ROUNDS_MAX} rounds"))
}

fn leave(state: PathBuf) -> Result<usize, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let options = NodeOptions::fixed(Mode::InProcess, Preset::Application);
    let right = Node::new(options).map_err(|error| failed(&error))?;
    let wrong = Wrong(InProcess::new(right.engine().clone(), &InProcessOptions::default()));
    let mut node =
        right.twin_on(Mode::Shadow, Arc::new(wrong), Some(state)).map_err(|error| failed(&error))?;
    let canister = node.create_canister(Principal::anonymous(), CYCLES).map_err(|error| failed(&error))?;
    let install = management::install_code(InstallMode::Install, canister, COUNTER, EMPTY, false);
    answered(&mut node, Principal::management_canister(), "install_code", &install)?;
    answered(&mut node, canister, "inc", EMPTY)?;
    if !node.settle_shadow(Duration::from_secs(60)) {
        return Err("shadow has not compared all within a minute".to_owned());
    }
    for record in node.divergences() {
        record.bundle.ok_or("nothing is kept")??;
    }
    Ok(node.divergences().len())
}

fn main() -> ExitCode {
    let Some(state) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: wrong-sandbox STATE");
        return ExitCode::from(2);
    };
    match on_executor_stack(|| leave(state)) {
        Ok(count) if count > 0 => {
            println!("{count} differences");
            ExitCode::SUCCESS
        }
        Ok(_) => {
            eprintln!("the wrong sandbox was not noticed");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
