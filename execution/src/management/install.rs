//! `install_code`: several runs on a copy, moved into place as one or not at all
//! (`canister-execution.md` section 4.8).

use std::sync::Arc;

use crate::answer::{Verdict, answer};
use crate::check::check_interface;
use crate::management::candid_io::decode;
use crate::management::lifecycle::note_change;
use crate::management::{Answered, Managed, Management, Stuck, types};
use crate::memory::{Arena, Memory};
use crate::module::Interface;
use crate::report::Executed;
use crate::run::{CANDID_EMPTY, Call, Env, Installed, Staged, ended, retried};
use crate::state::{
    CanisterState, ChangeDetails, Code, Input, Install, InstallMode, PausedMessage, UpgradeOptions,
};
use crate::subnet::{RoundWork, Subnet};
use crate::{
    BackendError, Cycles, Ending, EntryPoint, ErrorCode, Instructions, Module, Principal, UserError, text,
};

/// The private section of modules whose heap survives an upgrade.
const PERSISTENCE_SECTION: &str = "enhanced-orthogonal-persistence";

/// An install on its way: a copy of the canister and what is left of the budget.
struct Installing<'a> {
    staged: &'a mut Staged,
    caller: Principal,
    instructions_left: Instructions,
    /// Instructions used, compilation included.
    used: Instructions,
    prepaid: Cycles,
}

/// The guest's error inside, the node's outside.
type Step<T> = Result<Result<T, UserError>, BackendError>;

/// `?` on the guest's error of a [`Step`].
macro_rules! guest {
    ($step:expr) => {
        match $step {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        }
    };
}

impl Subnet {
    pub(super) fn install_code(&mut self, call: &Management<'_>, work: &mut RoundWork) -> Managed {
        let arg: types::Install = guest!(decode("install_code", &call.call.arg));
        let canister = guest!(self.installable(call, arg.canister_id, arg.mode)).clone();
        self.begin_install(call, canister, arg, work)
    }

    /// The canister, if the caller may install code in it now.
    pub(super) fn installable(
        &self,
        call: &Management<'_>,
        id: Principal,
        mode: types::InstallMode,
    ) -> Result<&CanisterState, UserError> {
        let canister = self.controlled(call, id)?;
        mode_fits(canister, mode)?;
        self.may_install(canister)?;
        Ok(canister)
    }

    /// Begins an install in a canister that is [`Self::installable`]: it has it in hand until it is done. Nothing of
    /// `canister` is put in place where the node fails.
    pub(super) fn begin_install(
        &mut self,
        call: &Management<'_>,
        mut canister: CanisterState,
        arg: types::Install,
        work: &mut RoundWork,
    ) -> Managed {
        let (mode, upgrade) = match arg.mode {
            types::InstallMode::Install => (InstallMode::Install, UpgradeOptions::default()),
            types::InstallMode::Reinstall => (InstallMode::Reinstall, UpgradeOptions::default()),
            types::InstallMode::Upgrade(options) => {
                let options = options.unwrap_or_default();
                let keep = |persistence| matches!(persistence, types::Persistence::Keep);
                let upgrade = UpgradeOptions {
                    skip_pre_upgrade: options.skip_pre_upgrade.unwrap_or(false),
                    keep_heap: options.wasm_memory_persistence.map(keep),
                };
                (InstallMode::Upgrade, upgrade)
            }
        };
        let install = Install {
            call: Arc::clone(call.call),
            mode,
            upgrade,
            module: Arc::from(arg.wasm_module.into_vec()),
            arg: Arc::from(arg.arg.into_vec()),
            caller_version: arg.sender_canister_version,
        };
        let input = Input::Install(Arc::new(install));
        let start = self.env(1).start(&canister);
        canister.paused = Some(PausedMessage { input, slices: 0, start });
        let id = canister.id;
        match self.run_in_hand(canister, work) {
            Ok(()) => Ok(Ok(Answered::Later)),
            Err(error) => Err(Stuck { canister: id, error }),
        }
    }
}

/// Does an install on the copy of the canister, and answers the call.
pub(crate) async fn install(staged: &mut Staged, install: &Install) -> Result<Installed, BackendError> {
    let call = &install.call;
    let before = staged.canister.clone();
    let (result, instructions) = match Installing::prepay(staged, call.origin.caller()) {
        Ok(mut installing) => {
            let result = installing.install(install).await?;
            let used = installing.used;
            match &result {
                Ok(_) => installing.paid(),
                Err(_) => installing.undone(before),
            }
            (result, used)
        }
        Err(error) => (Err(error), 0),
    };
    let done = result.is_ok();
    let verdict = match result {
        Ok(module) => {
            let details = ChangeDetails::CodeDeployment(install.mode, module.hash);
            note_change(staged.env.time, call, &mut staged.canister, install.caller_version, details);
            Verdict::Reply(Arc::from(CANDID_EMPTY))
        }
        Err(error) => Verdict::Error(error),
    };
    staged.outputs.extend(answer(Principal::management_canister(), &call.origin, verdict, call.cycles));
    Ok(Installed { done, instructions })
}

fn mode_fits(canister: &CanisterState, mode: types::InstallMode) -> Result<(), UserError> {
    use types::InstallMode::{Install, Reinstall, Upgrade};
    let id = canister.id;
    match (mode, &canister.code) {
        (Install, Some(_)) => {
            let text = format!(
                "Canister {id} cannot be installed because the canister is not empty. Try installing with mode='reinstall' instead."
            );
            Err(UserError::new(ErrorCode::NON_EMPTY, text))
        }
        (Upgrade(_), None) => Err(text::no_module(id)),
        (Install, None) | (Reinstall, _) | (Upgrade(_), Some(_)) => Ok(()),
    }
}

fn has_persistence(module: &Module) -> bool {
    module.interface.custom_sections.get(PERSISTENCE_SECTION).is_some_and(|section| !section.public)
}

/// Whether the heap survives: asked for, and the new module made for it; never lost by omission.
fn keeps_heap(canister: &CanisterState, new: &Module, upgrade: UpgradeOptions) -> Result<bool, UserError> {
    let contract = |text: &str| Err(text::from_canister(canister.id, ErrorCode::CONTRACT_VIOLATION, text));
    match upgrade.keep_heap {
        Some(true) if has_persistence(new) => Ok(true),
        Some(true) => contract(
            "Invalid upgrade option: Enhanced orthogonal persistence requires a module with the private custom section `enhanced-orthogonal-persistence`",
        ),
        Some(false) => Ok(false),
        None if canister.module().is_some_and(|old| has_persistence(old)) => contract(
            "Missing upgrade option: Enhanced orthogonal persistence requires the `wasm_memory_persistence` upgrade option",
        ),
        None => Ok(false),
    }
}

impl<'a> Installing<'a> {
    fn prepay(staged: &'a mut Staged, caller: Principal) -> Result<Self, UserError> {
        let limits = &staged.env.config.limits;
        let limit = limits.install_instructions;
        // The new module isn't known yet: the charge is that of a 32-bit one until it is.
        let price = limits.execution_price(false, limit);
        let liquid = staged.canister.liquid(limits);
        if liquid < price {
            let missing = text::out_of_cycles(staged.canister.id, price - liquid).description;
            let text = format!("Canister installation failed with `{missing}`.");
            return Err(UserError::new(ErrorCode::OUT_OF_CYCLES, text));
        }
        staged.canister.balance -= price;
        Ok(Self { staged, caller, instructions_left: limit, used: 0, prepaid: price })
    }

    async fn install(&mut self, install: &Install) -> Step<Arc<Module>> {
        let Install { mode, upgrade, module, arg, .. } = install;
        let env = &self.staged.env;
        let compiled = retried(&*env.backend, || {
            let compiled = env.compiler.compile(module)?;
            if let Ok(module) = &compiled {
                check_interface(&module.interface, &env.config.limits)?;
            }
            Ok(compiled)
        })?;
        let module = match compiled {
            Ok(module) => module,
            Err(invalid) => {
                let text = format!("Canister's Wasm module is not valid: {invalid}");
                let id = self.staged.canister.id;
                return Ok(Err(text::from_canister(id, ErrorCode::INVALID_MODULE, &text)));
            }
        };
        guest!(self.spend(module.interface.compile_instructions));
        let is_upgrade = *mode == InstallMode::Upgrade;
        let keep = is_upgrade && guest!(keeps_heap(&self.staged.canister, &module, *upgrade));
        if is_upgrade && !upgrade.skip_pre_upgrade && self.exports_pre_upgrade() {
            guest!(self.run(EntryPoint::PreUpgrade).await?);
        }
        guest!(self.replace_code(&module, *mode, keep)?);
        let (exports, arg) = (module.interface.exports, Arc::clone(arg));
        if exports.start {
            guest!(self.run(EntryPoint::Start).await?);
        }
        if is_upgrade {
            if exports.post_upgrade {
                guest!(self.run(EntryPoint::PostUpgrade { arg }).await?);
            }
        } else if exports.init {
            guest!(self.run(EntryPoint::Init { arg }).await?);
        }
        Ok(self.affordable().map(|()| module))
    }

    fn exports_pre_upgrade(&self) -> bool {
        self.staged.canister.module().is_some_and(|module| module.interface.exports.pre_upgrade)
    }

    fn spend(&mut self, instructions: Instructions) -> Result<(), UserError> {
        let Some(left) = self.instructions_left.checked_sub(instructions) else {
            self.used = self.used.saturating_add(self.instructions_left);
            self.instructions_left = 0;
            let limit = self.staged.env.config.limits.install_instructions;
            let text =
                format!("Canister exceeded the limit of {limit} instructions for single message execution.");
            return Err(text::from_canister(self.staged.canister.id, ErrorCode::INSTRUCTION_LIMIT, &text));
        };
        self.used = self.used.saturating_add(instructions);
        self.instructions_left = left;
        Ok(())
    }

    /// Runs an entry point on the copy and applies what it did to the copy.
    async fn run(&mut self, entry: EntryPoint) -> Step<()> {
        let id = self.staged.canister.id;
        let Some(snapshot) = self.staged.canister.snapshot() else { return Ok(Err(text::no_module(id))) };
        let call = Call {
            entry,
            caller: self.caller,
            instructions_max: self.instructions_left,
            context: None,
            refunded: 0,
        };
        let invocation = self.staged.env.invocation(&self.staged.canister, call);
        let checked = self.staged.execute(&snapshot, &invocation).await?;
        self.staged.note(&invocation, &checked, None, ended(&checked, id));
        guest!(self.spend(checked.outcome().instructions));
        if let Ending::Trapped(trap) = &checked.outcome().ending {
            return Ok(Err(text::trap(id, trap)));
        }
        crate::apply::apply(&mut self.staged.canister, &invocation.entry, checked, false);
        Ok(Ok(()))
    }

    /// Puts the new module with its initial memory into the copy.
    fn replace_code(&mut self, module: &Arc<Module>, mode: InstallMode, keep: bool) -> Step<()> {
        let Staged { env, canister, .. } = &mut *self.staged;
        let interface = &module.interface;
        if keep && let Err(why) = can_take(interface, canister.code.as_ref()) {
            let text = format!("Invalid upgrade option: the Wasm memory can't be kept: {why}");
            return Ok(Err(text::from_canister(canister.id, ErrorCode::CONTRACT_VIOLATION, &text)));
        }
        let before = canister.memory_taken();
        let arena = canister.arena().cloned();
        let old = canister.code.take();
        let arena = match arena {
            Some(arena) => arena,
            None => {
                retried(&*env.backend, || Ok(Arena::within(env.memory.arena_bytes, &env.memory.budget)?))?
            }
        };
        let heap = match &old {
            Some(code) if keep => code.heap.with(code.heap.wasm_pages().max(interface.heap_pages_min), []),
            _ => {
                let data = interface.data.iter().map(|segment| (segment.offset, &segment.bytes[..]));
                Memory::with_segments(&arena, interface.heap_pages_min, data).map_err(BackendError::from)?
            }
        };
        let stable = match (mode, old) {
            (InstallMode::Upgrade, Some(code)) => code.stable,
            _ => Memory::default(),
        };
        let globals = Arc::from(interface.globals.as_slice());
        canister.code =
            Some(Code { module: Arc::clone(module), arena, heap, stable, globals, installed: env.time });
        canister.global_timer = 0;
        canister.version += 1;
        if mode != InstallMode::Upgrade {
            canister.certified_data.clear();
        }
        if mode == InstallMode::Reinstall {
            canister.log.clear();
        }
        canister.update_hook();
        let growth = canister.memory_taken().saturating_sub(before);
        Ok(memory_fits(env, canister, growth))
    }

    /// Whether the canister stays above the freezing limit with the memory it has now.
    fn affordable(&self) -> Result<(), UserError> {
        let canister = &self.staged.canister;
        let freezing = canister.freezing();
        let limits = &self.staged.env.config.limits;
        let limit = freezing.limit(limits, 0).saturating_sub(freezing.reserved);
        if canister.balance < limit {
            let missing = text::out_of_cycles(canister.id, limit - canister.balance).description;
            let text = format!("Canister installation failed with `{missing}`.");
            return Err(UserError::new(ErrorCode::OUT_OF_CYCLES, text));
        }
        Ok(())
    }

    fn price_used(&self) -> Cycles {
        let memory64 = self.staged.canister.module().is_some_and(|module| module.interface.memory64);
        let price = self.staged.env.config.limits.execution_price(memory64, self.used);
        price.min(self.prepaid)
    }

    /// Gives back what was not used.
    fn paid(self) {
        let unused = self.prepaid - self.price_used();
        let canister = &mut self.staged.canister;
        canister.balance = canister.balance.saturating_add(unused);
    }

    /// Leaves the canister as it was, but for the charge and the log.
    fn undone(self, before: CanisterState) {
        let price = self.price_used();
        let Staged { env, canister, executed, .. } = self.staged;
        *canister = before;
        canister.balance = canister.balance.saturating_sub(price);
        let capacity = canister.log_capacity();
        for line in executed.iter().flat_map(|Executed { logs, .. }| logs) {
            canister.log.push(env.time, &line.text, capacity);
        }
    }
}

/// Whether a module can go on with the heap of `old`.
fn can_take(new: &Interface, old: Option<&Code>) -> Result<(), String> {
    let Some(old) = old.filter(|old| old.module.interface.has_memory) else { return Ok(()) };
    let width = |memory64| if memory64 { 64 } else { 32 };
    if !new.has_memory {
        return Err("the new module has none".into());
    }
    if new.memory64 != old.module.interface.memory64 {
        let (new, old) = (width(new.memory64), width(old.module.interface.memory64));
        return Err(format!("the new module's is a {new}-bit one, the old {old}-bit"));
    }
    let pages = old.heap.wasm_pages();
    if pages > new.heap_pages_max {
        return Err(format!("it has {pages} pages, the new module's has {} at most", new.heap_pages_max));
    }
    Ok(())
}

fn memory_fits(env: &Env, canister: &CanisterState, growth: u64) -> Result<(), UserError> {
    if growth > env.memory_available {
        return Err(text::subnet_memory(growth, env.memory_available));
    }
    let limit = canister.settings.wasm_memory_limit;
    let heap = canister.code.as_ref().map_or(0, |code| code.heap.bytes());
    if limit != 0 && heap > limit {
        return Err(text::wasm_memory_limit(canister.id, limit, heap));
    }
    Ok(())
}
