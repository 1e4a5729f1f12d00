//! The thread that drives the rollout of this subnet: commands, steps, measurements, verdicts, rollbacks.
//!
//! It alone changes what is exposed. Everything that it decides goes through the state machine; each new state is in the
//! store before it has an effect, a rollback's alone also without it.

mod command;
mod driven;
mod follow;
mod judge;
mod look;
mod next;
mod prewarming;
mod trial;
mod view;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use rollout::audit::{AUDIT_BYTES_MAX, Audit, Entry, FILE_NAME, Source};
use rollout::machine::{Active, Effect, Event, Phase, Refusal, Rollout};
use rollout::store::{FileStore, Line, StateStore};
use rollout::{Exposure, Exposures, Policy};
use serde_json::{Value, json};

use super::commands::CommandQueue;
use super::signals::Stop;
use super::status::Board;
use driven::Driven;
use judge::Crashes;
use prewarming::Prewarming;

pub(super) use view::PHASES;

/// How long the thread waits for a command before it looks at everything else.
const TICK: Duration = Duration::from_millis(50);
/// How long a store that can't be written is left alone.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// Points of the history that is shown.
const HISTORY_MAX: usize = 720;

/// Who does something, and why.
struct By {
    actor: String,
    source: Source,
    reason: Option<String>,
    /// What was asked for, where a person asked.
    command: Option<&'static str>,
}

impl By {
    fn node() -> Self {
        Self { actor: "node".into(), source: Source::Node, reason: None, command: None }
    }

    fn because(actor: &str, source: Source, reason: impl Into<String>) -> Self {
        Self { actor: actor.into(), source, reason: Some(reason.into()), command: None }
    }
}

pub(super) struct Driver {
    board: Arc<Board>,
    stop: Arc<Stop>,
    subnet: String,
    config: PathBuf,
    state: PathBuf,
    store: Box<dyn StateStore>,
    audit: Audit,
    line: Line,
    policy: Arc<Policy>,
    generation: u64,
    killed: bool,
    nodes: Vec<String>,
    rollouts: BTreeMap<String, Driven>,
    /// Where the interval under way ends, milliseconds since 1970.
    interval_ends_ms: u64,
    /// Comparisons and confirmed differences that were counted already.
    shadow_seen: [u64; 2],
    /// When the store was last tried in vain.
    store_tried: Option<Instant>,
    /// What the log has said of the store and of the audit log.
    trouble: Option<String>,
    /// What there is to know of the policy, as it was audited.
    notices: Vec<String>,
    /// Why the policy file is not in force as it is, as it was audited.
    refused: Option<String>,
}

/// The policy file has it no more.
fn gone() -> By {
    By::because("file", Source::File, "the policy file has it no more")
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Whole milliseconds.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the policy file may lack it.
fn is_released(rollout: &Rollout) -> bool {
    matches!(
        rollout.phase(),
        Phase::RolledBack { acknowledged: true, .. } | Phase::Active(Active::Completed) | Phase::Finished
    )
}

impl Driver {
    /// Takes up what is stored, and exposes it, before any message is run.
    ///
    /// # Errors
    /// What is stored can't be used, or the policy file lacks a rollout whose rollback nobody has acknowledged.
    pub(super) fn start(
        board: Arc<Board>,
        stop: Arc<Stop>,
        subnet: &str,
        config: &Path,
        state: &Path,
    ) -> Result<Self, String> {
        let store = FileStore::open(state).map_err(|error| error.to_string())?;
        let stored = store.load().map_err(|error| error.to_string())?;
        let path = state.join(FILE_NAME);
        let (audit, opened) = Audit::open(&path, AUDIT_BYTES_MAX).map_err(|error| error.to_string())?;
        let in_force = board.nodes()[0].instruments.live().in_force();
        let mut driver = Self {
            nodes: board.nodes().iter().map(|node| node.name.clone()).collect(),
            subnet: subnet.to_owned(),
            config: config.to_owned(),
            state: state.to_owned(),
            store: Box::new(store),
            audit,
            line: stored.line,
            policy: Arc::clone(&in_force.policy),
            generation: 0,
            killed: false,
            rollouts: BTreeMap::new(),
            interval_ends_ms: 0,
            shadow_seen: [0; 2],
            store_tried: None,
            trouble: None,
            notices: Vec::new(),
            refused: None,
            board,
            stop,
        };
        let details = opened.torn.map(|bytes| format!("{bytes} bytes of an unfinished entry were cut off"));
        driver.note(Entry { details: details.into_iter().collect(), ..driver.entry(&By::node(), "started") });
        for (id, rollout) in stored.rollouts {
            let holds = rollout.is_latched() || rollout.exposed_step().is_some();
            let covered = in_force.policy.rollout(&id).is_some_and(|rule| rule.covers(subnet));
            if holds && !is_released(&rollout) && !covered {
                return Err(format!(
                    "the policy has no [rollouts.{id}] for subnet {subnet}, and that one is under way or its rollback is not acknowledged: put it back, start, and `bulkhead abort {id}`, `bulkhead ack {id}`"
                ));
            }
            let counts = stored.counts.get(&id).copied();
            driver.rollouts.insert(id, Driven { stored: counts, ..Driven::new(rollout) });
        }
        for id in driver.ids() {
            driver.follow_policy_of(&id, &in_force);
            driver.step(&id, Event::Restarted, &By::node());
        }
        driver.tick();
        Ok(driver)
    }

    /// Drives until it is time to stop.
    pub(super) fn run(mut self, queue: CommandQueue) -> Result<JoinHandle<()>, String> {
        let thread = std::thread::Builder::new().name("rollouts".to_owned());
        let run = move || {
            // What a restart ran again is no measurement. A difference is one whenever it is found.
            self.take();
            self.shadow_seen[0] = self.comparisons()[0];
            let driven = std::panic::catch_unwind(AssertUnwindSafe(|| self.until_stopped(&queue)));
            if driven.is_err() {
                self.give_up();
            }
        };
        thread.spawn(run).map_err(|error| format!("could not start the thread of the rollouts: {error}"))
    }

    fn until_stopped(&mut self, queue: &CommandQueue) {
        while !self.stop.is_set() {
            if let Some(pending) = queue.next(TICK) {
                let answer = self.command(&pending.command);
                self.tick();
                pending.answer(answer);
            }
            self.tick();
        }
        self.note(self.entry(&By::node(), "stopped"));
    }

    /// Without guards there is no candidate.
    fn give_up(&mut self) {
        let latched = Exposure { latched: true, ..Exposure::default() };
        let rollouts = self.rollouts.keys().map(|id| (id.clone(), latched)).collect();
        let exposures = Exposures { rollouts, nodes: self.nodes.clone() };
        self.board.nodes().iter().for_each(|node| _ = node.instruments.live().expose(exposures.clone()));
        tracing::error!(
            "the thread of the rollouts has ended by a fault of its own: the control is in force until the next start"
        );
        self.trouble = Some(
            "the thread of the rollouts has ended: the control is in force; start the node again".into(),
        );
        self.show();
    }

    fn ids(&self) -> Vec<String> {
        self.rollouts.keys().cloned().collect()
    }

    /// Everything that time brings.
    fn tick(&mut self) {
        let in_force = self.board.nodes()[0].instruments.live().in_force();
        self.follow_policy(&in_force);
        self.follow_kill(&in_force);
        // Before anything that takes time.
        for id in self.ids() {
            self.fuses(&id);
        }
        self.follow_refusals();
        for id in self.ids() {
            self.drive(&id);
        }
        self.measure();
        self.show();
    }

    /// Gives an event to a rollout: stores the new state, and takes its effects up. Why it was refused, if it was.
    fn step(&mut self, id: &str, event: Event, by: &By) -> Option<Refusal> {
        let now_ms = now_ms();
        let driven = self.rollouts.get_mut(id)?;
        let before = driven.state.clone();
        let (mut next, mut effects) = before.clone().step(event, now_ms);
        if let Some(Effect::Refused(refusal)) = effects.first() {
            return Some(*refusal);
        }
        if next.is_latched() && !before.is_latched() {
            // A rollback waits for no disk.
            let driven = self.rollouts.get_mut(id)?;
            (driven.state, driven.in_force) = (next.clone(), None);
            self.expose();
        }
        if next != before {
            let mut saved = self.store.save(id, &next);
            if saved.is_ok() && next.is_frozen() {
                let (found, again) = next.clone().step(Event::StoreFound, now_ms);
                saved = self.store.save(id, &found);
                if saved.is_ok() {
                    next = found;
                    effects.extend(again);
                }
            }
            if let Err(error) = saved {
                self.trouble(error.to_string());
                let driven = self.rollouts.get_mut(id)?;
                if !next.is_latched() {
                    // Not stored, not done.
                    driven.state = before.step(Event::StoreLost, now_ms).0;
                    return Some(Refusal::Frozen);
                }
                next = next.step(Event::StoreLost, now_ms).0;
            }
            self.rollouts.get_mut(id)?.state = next;
        }
        self.take_up(id, &before, effects, by);
        None
    }

    /// Whether the store can be written again: then what was done without it is stored, and effects are due again.
    fn look_for_store(&mut self, id: &str) {
        let Some(driven) = self.rollouts.get(id).filter(|driven| driven.state.is_frozen()) else { return };
        if self.store_tried.is_some_and(|tried| tried.elapsed() < STORE_AGAIN) {
            return;
        }
        let before = driven.state.clone();
        let (found, effects) = before.clone().step(Event::StoreFound, now_ms());
        match self.store.save(id, &found) {
            Ok(()) => {
                self.store_tried = None;
                if let Some(driven) = self.rollouts.get_mut(id) {
                    driven.state = found;
                }
                self.take_up(id, &before, effects, &By::node());
            }
            Err(error) => {
                self.store_tried = Some(Instant::now());
                self.trouble(error.to_string());
            }
        }
    }

    fn take_up(&mut self, id: &str, before: &Rollout, effects: Vec<Effect>, by: &By) {
        let from = before.phase();
        let Some(driven) = self.rollouts.get_mut(id) else { return };
        if effects.iter().any(|effect| matches!(effect, Effect::CutOver { .. } | Effect::Entered(_))) {
            // Of another phase: what is still to be had is given again.
            driven.todo.clear();
            driven.prewarming = None;
        }
        let mut said = Vec::new();
        for effect in effects {
            match effect {
                Effect::Prewarm { .. } | Effect::CutOver { .. } | Effect::Drain => {
                    driven.todo.push_back(effect)
                }
                Effect::Entered(phase) => {
                    driven.entered(phase, by);
                    if phase == Phase::Finished {
                        // The policy file says it now.
                        driven.in_force = None;
                    }
                    said.push((view::word(phase), Some(view::word(from)), phase));
                }
                Effect::Ended(status) => *driven.ended.entry(view::status_word(status)).or_default() += 1,
                Effect::Noted => said.push(("noted", None, from)),
                // Done before the event, which has no way back.
                Effect::RewritePolicy | Effect::Refused(_) => {}
            }
        }
        let step = driven.step_rule().map(|step| step.name.clone());
        for (action, from, phase) in said {
            let reason = by.reason.clone().or_else(|| view::why(phase).map(str::to_owned));
            let entry = Entry {
                subject: Some(id.to_owned()),
                from: from.map(str::to_owned),
                to: Some(action.to_owned()),
                reason,
                details: step.iter().map(|name| format!("step {name}")).collect(),
                ..self.entry(by, by.command.unwrap_or(action))
            };
            self.note(entry);
        }
        self.expose();
        self.work_off(id);
    }

    /// Has the effects that are due, in their order.
    fn work_off(&mut self, id: &str) {
        // Taken off first: what comes of the last one may bring others.
        while let Some(effect) = self.rollouts.get_mut(id).and_then(|driven| driven.todo.pop_front()) {
            if !self.has(id, effect) {
                // Again at the next tick.
                if let Some(driven) = self.rollouts.get_mut(id) {
                    driven.todo.push_front(effect);
                }
                return;
            }
        }
    }

    /// Has an effect. False: not yet.
    fn has(&mut self, id: &str, effect: Effect) -> bool {
        let Some(driven) = self.rollouts.get_mut(id) else { return true };
        match effect {
            Effect::Prewarm { step } => {
                let needs = driven.step_rule().is_some_and(|step| step.mode != rollout::Mode::InProcess);
                return !needs || self.prewarm(id, step);
            }
            Effect::CutOver { step } => {
                if driven.in_force != step || driven.crashes.is_none() {
                    (driven.in_force, driven.block, driven.confirmed) = (step, None, 0);
                    driven.crashes = driven.in_force_rule().map(|rule| Crashes::new(&self.policy, rule));
                    driven.blown.clear();
                }
                self.expose();
            }
            Effect::Drain => {
                if !self.board.nodes().iter().all(|node| node.instruments.live().is_drained()) {
                    return false;
                }
                let event = if driven.state.is_latched() { Event::Drained } else { Event::Converged };
                // Refused while its store is lost, and said again.
                return self.step(id, event, &By::node()) != Some(Refusal::Frozen);
            }
            _ => {}
        }
        true
    }

    /// Makes sure that every node can sandbox, and has workers launched for a step before its messages need them, on a
    /// thread that nothing waits for. False: not yet.
    fn prewarm(&mut self, id: &str, step: usize) -> bool {
        let mut exposures = self.exposures();
        let Some(driven) = self.rollouts.get_mut(id) else { return true };
        if let Some(prewarming) = &driven.prewarming {
            let is_over = prewarming.is_over();
            if is_over {
                driven.prewarming = None;
            }
            return is_over;
        }
        let mut nodes = self.board.nodes().iter();
        if let Some(error) = nodes.find_map(|node| node.instruments.probe_sandbox().err()) {
            // The deadline of the switch ends it.
            self.trouble(format!("the step can't be switched to: {error}"));
            return false;
        }
        exposures.rollouts.insert(id.to_owned(), driven.exposure(Some(step)));
        let deadline = Duration::from_millis(driven.state.plan().switch_deadline_ms());
        let nodes = self.board.nodes().iter().map(|node| node.instruments.clone()).collect();
        match Prewarming::start(nodes, exposures, deadline) {
            Ok(prewarming) => driven.prewarming = Some(prewarming),
            Err(error) => {
                tracing::warn!("no thread to launch workers ahead of the step: {error}");
                return true;
            }
        }
        false
    }

    /// What is exposed.
    fn exposures(&self) -> Exposures {
        let exposed = |(id, driven): (&String, &Driven)| (id.clone(), driven.exposure(driven.in_force));
        Exposures { rollouts: self.rollouts.iter().map(exposed).collect(), nodes: self.nodes.clone() }
    }

    /// Puts in force what is exposed, on every node.
    fn expose(&self) {
        let exposures = self.exposures();
        for node in self.board.nodes() {
            let live = node.instruments.live();
            if *live.load().exposures != exposures {
                live.expose(exposures.clone());
            }
        }
    }

    /// What time brings to one rollout.
    fn drive(&mut self, id: &str) {
        let Some(driven) = self.rollouts.get_mut(id) else { return };
        if let Some(plan) = driven.planned.clone().filter(|plan| plan != driven.state.plan())
            && driven.state.phase() != Phase::Finished
        {
            let by = By::because("file", Source::File, "its steps were edited");
            if self.step(id, Event::Edited(plan), &by).is_none()
                && let Some(driven) = self.rollouts.get_mut(id)
            {
                driven.forget_step();
            }
        }
        self.look_for_store(id);
        self.work_off(id);
        let Some(driven) = self.rollouts.get(id) else { return };
        let is_gone = driven.rule.is_none();
        match driven.state.phase() {
            Phase::Active(Active::Draft) if !is_gone => {
                self.step(id, Event::Validated, &By::node());
            }
            Phase::Active(Active::Waiting) if self.waits_for(id).is_none() => {
                self.step(id, Event::Ready, &By::node());
            }
            Phase::Active(Active::Switching | Active::Warmup) => {
                self.step(id, Event::Tick, &By::node());
            }
            Phase::Active(Active::Completed) if is_gone => {
                self.step(id, Event::Finish, &gone());
            }
            // Nothing of it was in force, or such a file would have been refused.
            Phase::RolledBack { acknowledged: false, .. } if is_gone => {
                self.step(id, Event::Acknowledge, &gone());
            }
            _ => {}
        }
    }

    fn entry(&self, by: &By, action: &str) -> Entry {
        Entry {
            reason: by.reason.clone(),
            generation: Some(self.generation),
            ..Entry::new(Timestamp::now(), by.actor.clone(), by.source, action)
        }
    }

    /// Writes an entry. One that can't be written stops nothing: a rollback doesn't wait for a disk.
    fn note(&mut self, entry: Entry) {
        if let Err(error) = self.audit.append(entry) {
            self.trouble(format!("an entry is missing in the audit log: {error}"));
        }
    }

    /// Says once what is wrong.
    fn trouble(&mut self, why: String) {
        if self.trouble.as_ref() != Some(&why) {
            tracing::error!("{why}");
            self.trouble = Some(why);
        }
    }

    /// Shows everything on the board.
    fn show(&self) {
        let rollouts: Vec<Value> =
            self.rollouts.iter().map(|(id, driven)| view::rollout(id, driven, &self.next(id))).collect();
        self.board.set_rollouts(json!({
            "rollouts": rollouts,
            "line": { "stopped": self.line.stopped },
            "kill": { "engaged": self.killed, "file": self.policy.kill_file().map(|file| file.display().to_string()) },
            "generation": self.generation,
            "audit": { "entries": self.audit.seq(), "hash": self.audit.hash().to_string() },
            "trouble": self.trouble,
        }));
    }
}
