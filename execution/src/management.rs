//! The management canister `aaaaa-aa` (`canister-execution.md` section 5, levels 1 and 2).

mod candid_io;
mod chunks;
mod install;
mod lifecycle;
mod logs;
mod metadata;
mod outside;
mod pending;
mod resources;
mod settings;
mod snapshots;
mod status;
mod subnet_info;
mod types;

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::Vector;
use sha2::{Digest, Sha256};

use crate::answer::{Verdict, answer};
use crate::query::QueryView;
use crate::state::{CanisterState, ManagementCall, Origin};
use crate::subnet::{RoundWork, Subnet, failure};
use crate::{BackendError, Cycles, ErrorCode, Principal, UserError, text};

use candid_io::decode;
pub(crate) use install::install;
pub(crate) use lifecycle::run_out;
pub use pending::PendingError;

/// What the management canister answers.
pub(crate) enum Answered {
    /// A Candid reply, and how much of the attached cycles comes back.
    Now(Vec<u8>, Cycles),
    /// Somebody else answers later.
    Later,
}

/// A management call that failed around the guest, and the canister it was about.
struct Stuck {
    canister: Principal,
    error: BackendError,
}

/// A guest's or caller's error inside, a node's outside.
type Managed = Result<Result<Answered, UserError>, Stuck>;

/// A call on its way through a method.
struct Management<'a> {
    call: &'a Arc<ManagementCall>,
}

impl Management<'_> {
    fn caller(&self) -> Principal {
        self.call.origin.caller()
    }

    fn by_user(&self) -> bool {
        matches!(self.call.origin, Origin::Ingress { .. })
    }
}

/// Who may call a method as a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IngressRule {
    /// Controllers of the canister named in the argument.
    Controllers,
    /// Everybody, where the subnet allows provisional methods.
    Provisional,
    /// Nobody.
    Never,
}

/// The rule for a method; `None`: there is no such method.
pub(crate) fn ingress_rule(method: &str) -> Option<IngressRule> {
    match method {
        "install_code"
        | "install_chunked_code"
        | "update_settings"
        | "uninstall_code"
        | "start_canister"
        | "stop_canister"
        | "delete_canister"
        | "canister_status"
        | "upload_chunk"
        | "clear_chunk_store"
        | "stored_chunks"
        | "take_canister_snapshot"
        | "load_canister_snapshot"
        | "list_canister_snapshots"
        | "delete_canister_snapshot" => Some(IngressRule::Controllers),
        "provisional_create_canister_with_cycles" | "provisional_top_up_canister" => {
            Some(IngressRule::Provisional)
        }
        "create_canister"
        | "deposit_cycles"
        | "raw_rand"
        | "canister_info"
        | "canister_metadata"
        | "fetch_canister_logs"
        | "list_canisters"
        | "node_metrics_history"
        | "subnet_info" => Some(IngressRule::Never),
        _ if outside::lacks(method) => Some(IngressRule::Never),
        _ => None,
    }
}

/// The canister that a controllers-only call is about.
pub(crate) fn target(method: &str, arg: &[u8]) -> Result<Principal, UserError> {
    if method == "install_chunked_code" {
        return chunks::target(method, arg);
    }
    decode::<types::CanisterIdRecord>(method, arg).map(|record| record.canister_id)
}

/// Answers a query of the management canister (`canister-execution.md` section 4.10).
pub(crate) fn query(
    view: &QueryView,
    sender: Principal,
    method: &str,
    arg: &[u8],
) -> Result<Vec<u8>, UserError> {
    let config = &view.env.config;
    let canister = |id: Principal| view.canisters.get(&id).ok_or_else(|| text::not_found(id));
    match method {
        "canister_status" => status::canister_status(canister(target(method, arg)?)?, sender, &config.limits),
        "fetch_canister_logs" => {
            let wanted: logs::Fetch = decode(method, arg)?;
            logs::fetch(canister(wanted.canister_id)?, sender, &wanted)
        }
        "list_canisters" => subnet_info::list_canisters(config, view.canisters.keys(), sender, arg),
        _ => {
            let text = format!("Query method {} not found.", text::shown(method));
            Err(UserError::new(ErrorCode::METHOD_NOT_FOUND, text))
        }
    }
}

pub(crate) fn not_controller(canister: &CanisterState, sender: Principal) -> UserError {
    let controllers: Vec<String> = canister.settings.controllers.iter().map(Principal::to_text).collect();
    let text = format!(
        "Only controllers of canister {} can call ic00 method. Canister's controllers: {}. Sender's ID: {sender}",
        canister.id,
        controllers.join(" ")
    );
    UserError::new(ErrorCode::INVALID_CONTROLLER, text)
}

pub(crate) fn no_method(method: &str) -> UserError {
    let text = format!("Management canister has no method '{}'", text::shown(method));
    UserError::new(ErrorCode::METHOD_NOT_FOUND, text)
}

/// Whether a method leaves alone what a paused message works on: it reads, or gives cycles.
fn is_harmless(method: &str) -> bool {
    matches!(
        method,
        "canister_status"
            | "canister_info"
            | "canister_metadata"
            | "stored_chunks"
            | "list_canister_snapshots"
            | "fetch_canister_logs"
            | "deposit_cycles"
            | "provisional_top_up_canister"
    )
}

impl Subnet {
    /// Runs the management calls that wait, in order; `false` when there was none that could run.
    /// A call that fails around the guest stays, as does one about a canister with a message in hand, and so do later
    /// ones of the same canister. One that fails round after round is set aside, and no other waits for it.
    pub(crate) fn run_management(&mut self, work: &mut RoundWork) -> bool {
        let calls = std::mem::take(&mut self.state.management);
        let mut kept = Vector::new();
        // Callers whose call waits for a message in hand, which may end in this round.
        let mut held = BTreeSet::new();
        let mut ran = false;
        for call in calls {
            if self.stuck.is_set_aside(&call) {
                kept.push_back(call);
                continue;
            }
            let caller = call.origin.caller();
            if self.stuck.waits(&call, self.state.round) {
                work.blocked.insert(caller);
            }
            if work.blocked.contains(&caller) || held.contains(&caller) {
                kept.push_back(call);
                continue;
            }
            if self.must_wait(&call) {
                if matches!(call.origin, Origin::Canister { .. }) {
                    held.insert(caller);
                }
                kept.push_back(call);
                continue;
            }
            let management = Management { call: &call };
            match self.manage(&management, work) {
                Ok(result) => {
                    ran = true;
                    self.stuck.forget(&call);
                    self.answer_management(&call, result);
                }
                Err(Stuck { canister, error }) => {
                    work.blocked.insert(caller);
                    // The call's failure, not its canister's: that may be well, with the code that it has.
                    let rounds = self.stuck.note(&call, self.code_of(&canister), &error, self.state.round);
                    work.report.failures.push(failure(canister, &error, rounds));
                    kept.push_back(call);
                }
            }
        }
        kept.append(std::mem::take(&mut self.state.management));
        self.state.management = kept;
        ran
    }

    pub(crate) fn answer_management(&mut self, call: &ManagementCall, result: Result<Answered, UserError>) {
        let (verdict, refund) = match result {
            Ok(Answered::Now(reply, refund)) => (Verdict::Reply(Arc::from(reply)), refund),
            Ok(Answered::Later) => return,
            Err(error) => (Verdict::Error(error), call.cycles),
        };
        let output = answer(Principal::management_canister(), &call.origin, verdict, refund);
        self.route(output.into_iter().collect());
    }

    /// Whether a call is about a canister that does nothing else than the message that it has in hand.
    fn must_wait(&self, call: &ManagementCall) -> bool {
        !is_harmless(&call.method) && call.about.is_some_and(|id| self.schedule.paused.contains(&id))
    }

    fn manage(&mut self, call: &Management<'_>, work: &mut RoundWork) -> Managed {
        let method = call.call.method.as_str();
        match method {
            "install_code" => return self.install_code(call, work),
            "install_chunked_code" => return self.install_chunked_code(call, work),
            _ => {}
        }
        let rule = ingress_rule(method);
        if call.by_user() && rule == Some(IngressRule::Never) {
            return Ok(Err(only_canisters(method)));
        }
        if self.is_host_method(method) {
            return Ok(self.wait_for_host(call));
        }
        if rule == Some(IngressRule::Provisional) && !self.config.provisional {
            return Ok(Err(no_method(method)));
        }
        Ok(match method {
            "create_canister" => self.create(call),
            "provisional_create_canister_with_cycles" => self.provisional_create(call),
            "provisional_top_up_canister" => self.provisional_top_up(call),
            "update_settings" => self.update_settings(call),
            "uninstall_code" => self.uninstall_code(call),
            "start_canister" => self.start_canister(call),
            "stop_canister" => self.stop_canister(call),
            "delete_canister" => self.delete_canister(call),
            "deposit_cycles" => self.deposit_cycles(call),
            "canister_status" => self.status_of(call),
            "canister_info" => self.canister_info(call),
            "canister_metadata" => self.canister_metadata(call),
            "raw_rand" => self.raw_rand(call),
            "upload_chunk" => self.upload_chunk(call),
            "clear_chunk_store" => self.clear_chunk_store(call),
            "stored_chunks" => self.stored_chunks(call),
            "take_canister_snapshot" => self.take_snapshot(call),
            "load_canister_snapshot" => self.load_snapshot(call),
            "list_canister_snapshots" => self.list_snapshots(call),
            "delete_canister_snapshot" => self.delete_snapshot(call),
            "fetch_canister_logs" => Err(logs::only_as_query()),
            "list_canisters" => self.list_canisters(call),
            "node_metrics_history" => self.node_metrics_history(call),
            "subnet_info" => self.subnet_info(call),
            _ => Err(outside::error(method, &call.call.arg).unwrap_or_else(|| no_method(method))),
        })
    }

    /// The canister that `id` names, if the caller controls it.
    fn controlled(&self, call: &Management<'_>, id: Principal) -> Result<&CanisterState, UserError> {
        let canister = self.canister(&id).ok_or_else(|| text::not_found(id))?;
        if canister.is_controlled_by(&call.caller()) {
            Ok(canister)
        } else {
            Err(not_controller(canister, call.caller()))
        }
    }

    /// 32 bytes that follow from the round's seed and the number of draws in the round.
    fn raw_rand(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        decode_nothing("raw_rand", &call.call.arg)?;
        let mut hash = Sha256::new();
        hash.update(b"bulkhead-raw-rand");
        hash.update(self.state.seed);
        hash.update(self.state.round.to_be_bytes());
        hash.update(self.state.draws.to_be_bytes());
        self.state.draws += 1;
        let random: [u8; 32] = hash.finalize().into();
        Ok(Answered::Now(candid_io::encode(&serde_bytes::ByteBuf::from(random.to_vec()))?, call.call.cycles))
    }
}

fn decode_nothing(method: &str, arg: &[u8]) -> Result<(), UserError> {
    if arg == crate::run::CANDID_EMPTY { Ok(()) } else { candid_io::decode_unit(method, arg) }
}

/// A call in which a canister at `version` gives another version as its own.
pub(crate) fn wrong_sender_version(method: &str, arg: &[u8], version: u64) -> Option<UserError> {
    let has_version = [
        "create_canister",
        "provisional_create_canister_with_cycles",
        "update_settings",
        "install_code",
        "install_chunked_code",
        "uninstall_code",
        "take_canister_snapshot",
        "load_canister_snapshot",
    ];
    if !has_version.contains(&method) {
        return None;
    }
    // What can't be decoded is refused when its turn comes.
    let arg: types::SenderVersion = candid_io::decode_or_default(method, arg).ok()?;
    let given = arg.sender_canister_version.filter(|&given| given != version)?;
    let text = format!(
        "Management canister call payload includes sender canister version {given} that does not match the actual sender canister version {version}."
    );
    Some(UserError::new(ErrorCode::CONTRACT_VIOLATION, text))
}

pub(crate) fn only_canisters(method: &str) -> UserError {
    if method == "fetch_canister_logs" {
        return logs::only_as_query();
    }
    let text = format!("{method} can only be called by a canister");
    UserError::new(ErrorCode::CANISTER_REJECTED, text)
}
