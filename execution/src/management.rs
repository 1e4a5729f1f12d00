//! The management canister `aaaaa-aa` (`canister-execution.md` section 5, level 1).

mod candid_io;
mod install;
mod lifecycle;
mod settings;
mod status;
mod types;

use std::sync::Arc;

use imbl::Vector;
use sha2::{Digest, Sha256};

use crate::answer::{Verdict, answer};
use crate::report::Executed;
use crate::state::{CanisterState, Input, ManagementCall, Origin, PausedMessage};
use crate::subnet::{RoundWork, Subnet};
use crate::{BackendError, Cycles, ErrorCode, Principal, UserError, text};

use candid_io::decode;
pub(crate) use install::install;
pub(crate) use lifecycle::run_out;
pub(crate) use status::canister_status;

/// What the management canister answers.
enum Answered {
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
    executed: Vec<Executed>,
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
        "install_code" | "update_settings" | "uninstall_code" | "start_canister" | "stop_canister"
        | "delete_canister" | "canister_status" => Some(IngressRule::Controllers),
        "provisional_create_canister_with_cycles" | "provisional_top_up_canister" => {
            Some(IngressRule::Provisional)
        }
        "create_canister" | "deposit_cycles" | "raw_rand" | "canister_info" => Some(IngressRule::Never),
        _ if outside_feature(method).is_some() => Some(IngressRule::Never),
        _ => None,
    }
}

/// The canister that a controllers-only call is about.
pub(crate) fn target(method: &str, arg: &[u8]) -> Result<Principal, UserError> {
    decode::<types::CanisterIdRecord>(method, arg).map(|record| record.canister_id)
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
    UserError::new(ErrorCode::METHOD_NOT_FOUND, format!("Management canister has no method '{method}'"))
}

/// That `caller` controls `canister`.
fn require_controller(canister: &CanisterState, caller: Principal) -> Result<(), UserError> {
    if canister.is_controlled_by(&caller) { Ok(()) } else { Err(not_controller(canister, caller)) }
}

/// Whether a method leaves alone what a paused message works on: it reads, or gives cycles.
fn is_harmless(method: &str) -> bool {
    ["canister_status", "canister_info", "deposit_cycles", "provisional_top_up_canister"].contains(&method)
}

/// Answers of a subnet that lacks a feature (`canister-execution.md` section 8).
fn outside_feature(method: &str) -> Option<UserError> {
    let threshold = matches!(
        method,
        "sign_with_ecdsa"
            | "ecdsa_public_key"
            | "sign_with_schnorr"
            | "schnorr_public_key"
            | "vetkd_derive_key"
            | "vetkd_public_key"
    );
    if threshold {
        let text = format!(
            "Unable to route management canister request {method}: Requested unknown or signing disabled threshold key, existing keys with signing enabled: []"
        );
        return Some(UserError::new(ErrorCode::CANISTER_REJECTED, text));
    }
    if method == "http_request" || method.starts_with("bitcoin_") {
        return Some(UserError::new(ErrorCode::CONTRACT_VIOLATION, "This API is not enabled on this subnet"));
    }
    let registry = ["setup_initial_dkg", "reshare_chain_key", "node_metrics_history", "rename_canister"];
    registry.contains(&method).then(|| {
        UserError::new(ErrorCode::CANISTER_REJECTED, format!("{method} is not available on this subnet"))
    })
}

impl Subnet {
    /// Runs the management calls that wait, in order; `false` when there was none that could run.
    /// A call that fails around the guest stays, as does one about a canister with a message in hand, and so do later
    /// ones of the same canister.
    pub(crate) fn run_management(&mut self, work: &mut RoundWork) -> bool {
        let calls = std::mem::take(&mut self.state.management);
        let mut kept = Vector::new();
        let mut ran = false;
        for call in calls {
            let caller = call.origin.caller();
            if work.blocked.contains(&caller) {
                kept.push_back(call);
                continue;
            }
            if self.must_wait(&call) {
                if matches!(call.origin, Origin::Canister { .. }) {
                    work.blocked.insert(caller);
                }
                kept.push_back(call);
                continue;
            }
            let mut management = Management { call: &call, executed: Vec::new() };
            match self.manage(&mut management, work) {
                Ok(result) => {
                    ran = true;
                    work.report.executed.append(&mut management.executed);
                    self.answer_management(&call, result);
                }
                Err(Stuck { canister, error }) => {
                    work.blocked.insert(caller);
                    work.report.failures.push(self.note_failure(canister, &error));
                    kept.push_back(call);
                }
            }
        }
        kept.append(std::mem::take(&mut self.state.management));
        self.state.management = kept;
        ran
    }

    fn answer_management(&mut self, call: &ManagementCall, result: Result<Answered, UserError>) {
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
        !self.schedule.paused.is_empty()
            && !is_harmless(&call.method)
            && target(&call.method, &call.arg).is_ok_and(|id| self.schedule.paused.contains(&id))
    }

    /// Begins an install: the canister has the call in hand until it is done.
    fn install_code(&mut self, call: &Management<'_>, work: &mut RoundWork) -> Managed {
        let found = target("install_code", &call.call.arg).and_then(|id| self.controlled(call, id));
        let mut canister = match found {
            Ok(canister) => canister.clone(),
            Err(error) => return Ok(Err(error)),
        };
        let input = Input::Management(Arc::clone(call.call));
        canister.paused = Some(PausedMessage { input, slices: 0, time: self.state.time });
        let id = canister.id;
        match self.run_in_hand(canister, work) {
            Ok(()) => Ok(Ok(Answered::Later)),
            Err(error) => Err(Stuck { canister: id, error }),
        }
    }

    fn manage(&mut self, call: &mut Management<'_>, work: &mut RoundWork) -> Managed {
        let method = call.call.method.as_str();
        if method == "install_code" {
            return self.install_code(call, work);
        }
        let rule = ingress_rule(method);
        if call.by_user() && rule == Some(IngressRule::Never) {
            return Ok(Err(only_canisters(method)));
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
            "raw_rand" => self.raw_rand(call),
            _ => Err(outside_feature(method).unwrap_or_else(|| no_method(method))),
        })
    }

    /// The canister that `id` names, if the caller controls it.
    fn controlled(&self, call: &Management<'_>, id: Principal) -> Result<&CanisterState, UserError> {
        let canister = self.canister(&id).ok_or_else(|| text::not_found(id))?;
        require_controller(canister, call.caller()).map(|()| canister)
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
        "uninstall_code",
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
    let text = format!("{method} can only be called by a canister");
    UserError::new(ErrorCode::CANISTER_REJECTED, text)
}
