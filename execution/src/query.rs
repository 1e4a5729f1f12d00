//! Queries: on the committed state, every effect dropped (`canister-execution.md` section 4.10).

mod composite;

use std::sync::Arc;

use imbl::OrdMap;

use crate::certification::CertifiedState;
use crate::check::Checked;
use crate::module::MethodKind;
use crate::report::Executed;
use crate::run::{Call, Env, ended, retried};
use crate::state::{CanisterState, Shared, Status};
use crate::{
    Answer, BackendError, Ending, EntryPoint, ErrorCode, Instructions, Invocation, Principal, Snapshot,
    UserError, management, text,
};

/// The committed state, to be asked while rounds go on. Clone is cheap.
#[derive(Clone)]
pub struct QueryView {
    pub(crate) env: Env,
    pub(crate) canisters: OrdMap<Principal, Shared<CanisterState>>,
    pub(crate) certified: Arc<CertifiedState>,
}

impl std::fmt::Debug for QueryView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryView").field("canisters", &self.canisters.len()).finish_non_exhaustive()
    }
}

/// What came of a query.
#[derive(Clone, Debug)]
pub struct QueryAnswer {
    /// The reply.
    pub result: Result<Vec<u8>, UserError>,
    /// Runs in order, callees and callbacks of a composite query included.
    pub executed: Vec<Executed>,
}

/// What a query has used and done so far.
pub(crate) struct Asking<'a> {
    pub(crate) view: &'a QueryView,
    /// Instructions left for the whole call graph.
    pub(crate) left: Instructions,
    /// The data certificate, until the first run takes it: callees and callbacks get none.
    pub(crate) certificate: Option<Arc<[u8]>>,
    pub(crate) executed: Vec<Executed>,
}

impl QueryView {
    /// Asks `canister` as `sender`, on the calling thread.
    #[must_use]
    pub fn query(&self, sender: Principal, canister: Principal, method: &str, arg: &[u8]) -> QueryAnswer {
        if canister == Principal::management_canister() {
            return QueryAnswer { result: self.ask_management(sender, method, arg), executed: Vec::new() };
        }
        let mut asking = Asking {
            view: self,
            left: self.env.config.limits.query_instructions,
            certificate: self.data_certificate(canister),
            executed: Vec::new(),
        };
        let result = asking.ask(sender, canister, method, Arc::from(arg), 0);
        let result = match result {
            Ok(Ok(Answer::Reply(data))) => Ok(data),
            Ok(Ok(Answer::Reject(reason))) => Err(UserError::new(ErrorCode::CANISTER_REJECTED, reason)),
            Ok(Err(error)) => Err(error),
            Err(error) => {
                tracing::warn!(%canister, %error, "query failed");
                Err(text::unavailable(canister))
            }
        };
        QueryAnswer { result, executed: asking.executed }
    }

    /// The data certificate, where the canister can see it: signing costs more than a short query.
    fn data_certificate(&self, id: Principal) -> Option<Arc<[u8]>> {
        let module = self.canisters.get(&id)?.module()?;
        module.interface.reads_certificate.then(|| Arc::from(self.certified.data_certificate(&id).to_cbor()))
    }

    pub(crate) fn ask_management(
        &self,
        sender: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<Vec<u8>, UserError> {
        let reply = management::query(self, sender, method, arg)?;
        let max = self.env.config.limits.query_reply_bytes;
        if reply.len() as u64 > max {
            let text = format!("Reply of {} bytes, at most {max} bytes allowed", reply.len());
            return Err(UserError::new(ErrorCode::CONTRACT_VIOLATION, text));
        }
        Ok(reply)
    }

    /// The canister, if it may be asked now.
    fn askable(&self, id: Principal) -> Result<(&CanisterState, Snapshot), UserError> {
        let canister = self.canisters.get(&id).ok_or_else(|| text::not_found(id))?;
        match canister.status {
            Status::Running => {}
            Status::Stopping(_) => return Err(text::stopping(id)),
            Status::Stopped => return Err(text::stopped(id)),
        }
        let snapshot = canister.snapshot().ok_or_else(|| text::no_module(id))?;
        if canister.is_frozen(&self.env.config.limits) {
            return Err(text::frozen_query(id));
        }
        Ok((canister, snapshot))
    }
}

impl Asking<'_> {
    /// Asks one canister; the node's failures outside, the guest's inside.
    pub(crate) fn ask(
        &mut self,
        sender: Principal,
        id: Principal,
        method: &str,
        arg: Arc<[u8]>,
        depth: usize,
    ) -> Result<Result<Answer, UserError>, BackendError> {
        let (canister, snapshot) = match self.view.askable(id) {
            Ok(askable) => askable,
            Err(error) => return Ok(Err(error)),
        };
        let name = method.to_owned();
        let entry = match snapshot.module.interface.methods.get(method) {
            Some(MethodKind::CompositeQuery) => EntryPoint::CompositeQuery { method: name, arg },
            Some(MethodKind::Query) => EntryPoint::Query { method: name, arg },
            Some(MethodKind::Update) | None => return Ok(Err(text::no_method(id, "query", method))),
        };
        if matches!(entry, EntryPoint::CompositeQuery { .. }) {
            return self.ask_composite(canister, &snapshot, entry, sender, depth);
        }
        let (_, checked) = self.run(canister, &snapshot, None, entry, sender)?;
        Ok(match checked.outcome.ending {
            Ending::Trapped(trap) => Err(text::trap(id, &trap)),
            Ending::Returned => match checked.outcome.effects.and_then(|effects| effects.answer) {
                Some(answer) => Ok(answer),
                None => Err(text::did_not_reply(id)),
            },
        })
    }

    /// Runs and checks one step, and takes its instructions from what is left.
    fn run(
        &mut self,
        canister: &CanisterState,
        snapshot: &Snapshot,
        overlay: Option<&Snapshot>,
        entry: EntryPoint,
        caller: Principal,
    ) -> Result<(Invocation, Checked), BackendError> {
        let call = Call { entry, caller, instructions_max: self.left, context: None, refunded: 0 };
        let mut invocation = self.view.env.invocation(canister, call);
        invocation.system.data_certificate = self.certificate.take();
        let on = overlay.unwrap_or(snapshot);
        let env = &self.view.env;
        let checked = retried(&*env.backend, || {
            let outcome = env.backend.query(snapshot, &invocation, overlay)?;
            env.checked(&invocation, on, outcome)
        })?;
        let outcome = &checked.outcome;
        self.left = self.left.saturating_sub(outcome.instructions);
        self.executed.push(Executed {
            canister: canister.id,
            invocation: invocation.id,
            kind: invocation.entry.kind(),
            method: invocation.entry.method().map(str::to_owned),
            ingress: None,
            ended: ended(&checked, canister.id),
            instructions: outcome.instructions,
            heap_pages_dirty: outcome.heap_pages_dirty,
            stable_pages_dirty: outcome.stable_pages_dirty,
            logs: outcome.logs.clone(),
            state_root: None,
        });
        Ok((invocation, checked))
    }
}
