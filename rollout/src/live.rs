//! The policy in force on a node, while its file changes.

mod conditions;
mod generations;
mod in_force;
mod load;
mod under_way;
mod watch;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{fmt, io};

use arc_swap::{ArcSwap, Guard};
use execution::Principal;
use jiff::Timestamp;

pub use generations::GENERATIONS_KEPT;
pub use in_force::InForce;
pub use load::{Checksum, LoadError};
pub use under_way::UnderWay;

use crate::measure::SwitchRecorder;
use crate::policy::is_there;
use crate::{
    Bounds, Change, Exposure, Exposures, Mode, Policy, Resolution, RolloutRule, SwitchDirection, SwitchTimes,
};
use generations::Generations;
use in_force::{Accepted, Place};
use load::Loaded;

/// A file that is refused is read again for this long first: it may be half written.
const SECOND_LOOK: Duration = Duration::from_millis(20);

/// What asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The file, or what leads to it, changed.
    Watch,
    /// SIGHUP.
    Hangup,
    /// Somebody asked for it.
    Request,
}

/// What a reload came to. `Display`: one line.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// What asked for it.
    pub trigger: Trigger,
    /// The generation in force after it.
    pub generation: u64,
    /// Whether this reload brought it. The same bytes bring none.
    pub is_new: bool,
    /// Of the file's bytes.
    pub checksum: Checksum,
    /// The keys that differ from the generation before.
    pub changes: Vec<Change>,
    /// From the request to the swap.
    pub took: Duration,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (generation, checksum) = (self.generation, self.checksum);
        if !self.is_new {
            return write!(
                f,
                "generation {generation} stays in force: the file has not changed, sha256 {checksum}"
            );
        }
        write!(f, "generation {generation} is in force after {:?}, sha256 {checksum}", self.took)?;
        match self.changes.as_slice() {
            [] => write!(f, "; no value differs"),
            changes => {
                let listed: Vec<_> = changes.iter().map(Change::to_string).collect();
                write!(f, "; {}", listed.join("; "))
            }
        }
    }
}

/// Told, on the thread that read the file, of every new generation and every refusal, and of whatever came of a reload
/// that was asked for.
pub type OnReload = Box<dyn Fn(Result<&Receipt, &LoadError>) + Send + Sync>;

/// What a [`LivePolicy`] follows.
pub struct LiveOptions {
    /// The policy file.
    pub path: PathBuf,
    /// The subnet that the node belongs to, as the file calls it.
    pub subnet: String,
    /// The node, as the file calls it.
    pub node: String,
    /// Where accepted policies are kept, the last [`GENERATIONS_KEPT`]: a directory of this node's own, made if it isn't
    /// there. With it a start with a bad file goes on with the last good policy, and generations are numbered on over
    /// starts. One that can't be read or written is warned of, and costs just that.
    pub generations: Option<PathBuf>,
    /// Told of reloads.
    pub on_reload: OnReload,
    /// Looks for the kill switch's file. It may take for ever: then the switch stays as it was last seen.
    pub is_there: IsThere,
}

/// Whether a file is there.
pub type IsThere = Arc<dyn Fn(&Path) -> io::Result<bool> + Send + Sync>;

impl LiveOptions {
    /// Nothing kept, nobody told; the kill switch is looked for in the file system.
    #[must_use]
    pub fn new(path: &Path, subnet: &str, node: &str) -> Self {
        let (subnet, node) = (subnet.to_owned(), node.to_owned());
        Self {
            path: path.to_owned(),
            subnet,
            node,
            generations: None,
            on_reload: Box::new(|_| {}),
            is_there: Arc::new(is_there),
        }
    }
}

/// Holds the policy in force. Read without a lock; replaced whole.
pub struct LivePolicy {
    shared: Arc<Shared>,
    /// Both threads that follow a file, the disk's first.
    followed: Option<(watch::Watcher, conditions::Follower)>,
}

struct Shared {
    place: Place,
    path: PathBuf,
    /// Bounds that the node started with.
    started: Bounds,
    in_force: ArcSwap<InForce>,
    /// Held while a file is read, accepted and kept. Nothing that swaps without reading waits for it.
    reading: Mutex<()>,
    loader: Mutex<Loader>,
    changed: Condvar,
    switches: Arc<SwitchRecorder>,
    generations: Option<Generations>,
    on_reload: OnReload,
    is_there: IsThere,
}

/// What swaps, one at a time, know of earlier ones.
struct Loader {
    last_error: Option<LoadError>,
    /// How far rollouts are exposed.
    exposures: Arc<Exposures>,
    /// What was in force, and is still held by what began under it.
    retired: Vec<Weak<InForce>>,
    /// What the log has said of the policy in force.
    told: HashSet<String>,
    /// Why the kill switch's file could not be looked for, as the log has said.
    kill_error: Option<String>,
    /// When a file that it is new in was looked for: what was asked before says nothing.
    kill_looked: Instant,
}

impl Default for Loader {
    fn default() -> Self {
        Self {
            last_error: None,
            exposures: Arc::new(Exposures::none().clone()),
            retired: Vec::new(),
            told: HashSet::new(),
            kill_error: None,
            kill_looked: Instant::now(),
        }
    }
}

impl LivePolicy {
    /// `mode` for ever, without a file.
    #[must_use]
    pub fn fixed(mode: Mode) -> Arc<Self> {
        let accepted =
            Accepted { policy: Arc::new(Policy::fixed(mode)), generation: 1, checksum: Checksum::of(b"") };
        let shared = Shared::new(accepted, None, LiveOptions::new(Path::new(""), "", ""));
        Arc::new(Self { shared, followed: None })
    }

    /// Reads `path` for `node` of `subnet` and follows its changes until dropped.
    ///
    /// # Errors
    /// The file is no valid policy, or can't be watched.
    pub fn watch(path: &Path, subnet: &str, node: &str) -> Result<Arc<Self>, LoadError> {
        Self::start(LiveOptions::new(path, subnet, node))
    }

    /// As [`LivePolicy::watch`]. A bad file is no error where a good one is kept: then that is in force, the log says
    /// so, and [`LivePolicy::last_error`] says why.
    ///
    /// # Errors
    /// As [`LivePolicy::watch`].
    pub fn start(options: LiveOptions) -> Result<Arc<Self>, LoadError> {
        let (path, mut options) = (options.path.clone(), options);
        let generations = options.generations.take().map(Generations::new);
        let first = first(&path, generations.as_ref())?;
        let shared = Shared::new(first.accepted, generations, options);
        shared.keep(&shared.in_force.load(), &first.bytes);
        if let Some(error) = first.refused {
            shared.refuse(&error);
        }
        let watcher = watch::Watcher::start(&path, Arc::clone(&shared))?;
        let follower = conditions::Follower::start(&shared)?;
        Ok(Arc::new(Self { shared, followed: Some((watcher, follower)) }))
    }

    /// The policy in force, for a moment: don't hold it while an execution runs.
    pub fn load(&self) -> Guard<Arc<InForce>> {
        self.shared.in_force.load()
    }

    /// The policy in force, to keep.
    #[must_use]
    pub fn in_force(&self) -> Arc<InForce> {
        self.shared.in_force.load_full()
    }

    /// Whether what began to run sandboxed at `began` is to be ended: since then something was taken out of the sandbox,
    /// and [`Policy::rollback_deadline`] is over. Where that was another canister it runs again, sandboxed.
    #[must_use]
    pub fn is_rolled_back(&self, began: Instant) -> bool {
        let in_force = self.load();
        let deadline = in_force.policy.rollback_deadline();
        in_force.rolled_back.is_some_and(|since| began < since && since.elapsed() >= deadline)
    }

    /// What is in force on this node for `canister`, or for those without a rule, and why.
    #[must_use]
    pub fn explain(&self, canister: Option<Principal>) -> Resolution {
        let in_force = self.in_force();
        let conditions = in_force.conditions(in_force.resolution.at_time);
        let mut resolution = in_force.policy.resolve(&self.shared.place.scope(canister), conditions);
        resolution.generation = in_force.generation;
        resolution
    }

    /// Exposes rollouts so far and no further, from now on. A policy that lacks one that isn't [released](Exposure) is
    /// refused from then on, and so is one that has other modes for it.
    pub fn expose(&self, exposures: Exposures) -> Arc<InForce> {
        let asked = Instant::now();
        let shared = &self.shared;
        let mut loader = shared.lock();
        let was_latched = |id: &str| loader.exposures.rollouts.get(id).is_some_and(|before| before.latched);
        let is_rollback = exposures.rollouts.iter().any(|(id, next)| next.latched && !was_latched(id));
        loader.exposures = Arc::new(exposures);
        let (accepted, killed) = {
            let in_force = shared.in_force.load();
            (in_force.accepted(), in_force.killed)
        };
        shared.swap(&mut loader, accepted, killed, asked, is_rollback)
    }

    /// What would be in force with these exposures.
    pub(crate) fn with(&self, exposures: &Exposures) -> InForce {
        let Shared { place, started, in_force, .. } = &*self.shared;
        let now = in_force.load();
        let conditions = (now.resolution.at_time, now.killed);
        InForce::new(now.accepted(), place, conditions, Arc::new(exposures.clone()), started, now.swap)
    }

    /// Notes how long it took to launch workers ahead of a step.
    pub fn prewarmed(&self, took: Duration) {
        self.shared.switches.prewarmed(took);
    }

    /// Whether nothing is under way that began under an earlier policy or exposure than the one in force. A run that is
    /// paused is under way.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let mut loader = self.shared.lock();
        loader.retired.retain(|retired| retired.strong_count() > 0);
        loader.retired.is_empty()
    }

    /// What is under way: under the policy in force, and under all earlier ones together.
    #[must_use]
    pub fn under_way(&self) -> (UnderWay, UnderWay) {
        let earlier: Vec<Arc<InForce>> =
            self.shared.lock().retired.iter().filter_map(Weak::upgrade).collect();
        let mut old = UnderWay::default();
        earlier.iter().for_each(|earlier| old.add(&earlier.under_way()));
        (self.load().under_way(), old)
    }

    /// How long the switches so far took, into the sandbox and out of it.
    #[must_use]
    pub fn switch_times(&self) -> SwitchTimes {
        self.shared.switches.total()
    }

    /// Why the file as it is now is not in force; `None`: it is.
    #[must_use]
    pub fn last_error(&self) -> Option<LoadError> {
        self.shared.lock().last_error.clone()
    }

    /// Reads the file now, on the way that every reload goes: read and check all of it, again after 20 ms if it is bad,
    /// then swap.
    ///
    /// # Errors
    /// Why it is refused; the last good policy stays in force.
    pub fn reload(&self, trigger: Trigger) -> Result<Receipt, LoadError> {
        if self.followed.is_none() {
            return Err(LoadError::Fixed);
        }
        let wait = |left| {
            std::thread::sleep(left);
            true
        };
        self.shared.reload(trigger, || (), wait).expect("nothing stops it")
    }

    /// Waits until `reached` holds for the policy in force and the last refusal, at most `timeout`.
    #[must_use]
    pub fn wait_until(
        &self,
        timeout: Duration,
        mut reached: impl FnMut(&InForce, Option<&LoadError>) -> bool,
    ) -> bool {
        let shared = &self.shared;
        let waiting = |loader: &mut Loader| !reached(&shared.in_force.load(), loader.last_error.as_ref());
        let waited = shared.changed.wait_timeout_while(shared.lock(), timeout, waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl fmt::Debug for LivePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LivePolicy")
            .field("in_force", &self.in_force())
            .field("followed", &self.followed.is_some())
            .finish()
    }
}

/// What a node starts with.
struct First {
    accepted: Accepted,
    bytes: Vec<u8>,
    /// Why it is not the file.
    refused: Option<LoadError>,
}

/// The policy of the file, or else the last good one that is kept.
fn first(path: &Path, generations: Option<&Generations>) -> Result<First, LoadError> {
    let kept = generations.map(Generations::list).transpose().unwrap_or_else(|error| {
        tracing::warn!("kept policies can't be read, generations are numbered from 1: {error}");
        None
    });
    let kept = kept.unwrap_or_default();
    let newest = kept.first();
    let loaded = load::load(path).or_else(|_| {
        // It may be half written.
        std::thread::sleep(SECOND_LOOK);
        load::load(path)
    });
    let (Loaded { policy, bytes, checksum }, refused) = match loaded {
        Ok(loaded) => (loaded, None),
        Err(error) => {
            let good = kept.iter().find_map(|kept| {
                let damaged = |why: &String| tracing::warn!("generation {} is of no use: {why}", kept.number);
                kept.load().inspect_err(damaged).ok()
            });
            (good.ok_or_else(|| error.clone())?, Some(error))
        }
    };
    // What was in force at the last moment of another start goes on under its number.
    let generation = match newest {
        Some(newest) if newest.checksum == checksum => newest.number,
        newest => newest.map_or(0, |newest| newest.number) + 1,
    };
    Ok(First { accepted: Accepted { policy: Arc::new(policy), generation, checksum }, bytes, refused })
}

impl Shared {
    fn new(accepted: Accepted, generations: Option<Generations>, options: LiveOptions) -> Arc<Self> {
        let LiveOptions { path, subnet, node, generations: _, on_reload, is_there } = options;
        let place = Place { subnet, node };
        let started = accepted.policy.bounds().clone();
        let mut loader = Loader::default();
        let kill_file = accepted.policy.kill_file();
        let killed = kill_file.map_or(Ok(false), |file| conditions::look(&is_there, file));
        let killed = loader.kill_seen(killed, false);
        let conditions = (Timestamp::now(), killed);
        let exposures = Arc::clone(&loader.exposures);
        let mut in_force = InForce::new(accepted, &place, conditions, exposures, &started, 1);
        let switches = Arc::new(SwitchRecorder::default());
        in_force.measured_by(&switches, Vec::new());
        loader.tell(&in_force, conditions.0);
        Arc::new(Self {
            place,
            path,
            started,
            in_force: ArcSwap::from_pointee(in_force),
            reading: Mutex::new(()),
            loader: Mutex::new(loader),
            changed: Condvar::new(),
            switches,
            generations,
            on_reload,
            is_there,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Loader> {
        // The loader is consistent between any two statements.
        self.loader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file until it is good, or a second look is over, with `before` each look. `wait` waits for at most so
    /// long, or until there is reason to look again; false from it ends the reload without a result.
    fn reload(
        &self,
        trigger: Trigger,
        mut before: impl FnMut(),
        mut wait: impl FnMut(Duration) -> bool,
    ) -> Option<Result<Receipt, LoadError>> {
        let asked = Instant::now();
        let end = asked + SECOND_LOOK;
        loop {
            let late = Instant::now() >= end;
            before();
            match self.accept(trigger, asked) {
                Ok(receipt) => {
                    if receipt.is_new || trigger != Trigger::Watch {
                        tracing::info!(?trigger, generation = receipt.generation, "{receipt}");
                        (self.on_reload)(Ok(&receipt));
                    }
                    return Some(Ok(receipt));
                }
                Err(error) if late => {
                    // The same refusal is told once, however many events come.
                    let told = self.lock().last_error.as_ref().map(ToString::to_string);
                    if trigger != Trigger::Watch || told != Some(error.to_string()) {
                        self.refuse(&error);
                    }
                    return Some(Err(error));
                }
                Err(_) => {}
            }
            if !wait(end.saturating_duration_since(Instant::now())) {
                return None;
            }
        }
    }

    /// Read fully, check fully, then swap. Nothing is changed by a file that is refused.
    fn accept(&self, trigger: Trigger, asked: Instant) -> Result<Receipt, LoadError> {
        let path = &self.path;
        let _one_at_a_time = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = load::read(path)?;
        let checksum = Checksum::of(&bytes);
        // Not all that is in force, which nothing may keep: whether it is drained is told from that.
        let before = self.in_force.load().accepted();
        if checksum == before.checksum {
            self.lock().last_error = None;
            self.changed.notify_all();
            let (generation, took) = (before.generation, asked.elapsed());
            return Ok(Receipt { trigger, generation, is_new: false, checksum, changes: Vec::new(), took });
        }
        let policy = Arc::new(load::parse(path, &bytes)?);
        // One that is followed already is not waited for: its disk may hang.
        let kill_file = policy.kill_file().filter(|file| before.policy.kill_file() != Some(file));
        let looked = Instant::now();
        let seen = kill_file.map(|file| conditions::look(&self.is_there, file));
        let generation = before.generation + 1;
        let changes = before.policy.changes(&policy);
        let in_force = {
            let mut loader = self.lock();
            loader.allows(&before.policy, &policy, &self.place.subnet)?;
            loader.last_error = None;
            let killed = match seen {
                Some(seen) => {
                    loader.kill_looked = looked;
                    loader.kill_seen(seen, false)
                }
                None => policy.kill_file().is_some() && self.in_force.load().killed,
            };
            self.swap(&mut loader, Accepted { policy, generation, checksum }, killed, asked, true)
        };
        let took = asked.elapsed();
        if !in_force.restart_for.is_empty() {
            let keys = in_force.restart_for.join(", ");
            tracing::warn!(
                generation,
                "{keys}: what the file says now is in force after a restart of the node"
            );
        }
        // After the swap: a switch doesn't wait for a disk. A crash before this reads the file again.
        self.keep(&in_force, &bytes);
        Ok(Receipt { trigger, generation, is_new: true, checksum, changes, took })
    }

    /// Puts `accepted` in force, as of now and with the kill switch engaged or not. Where that takes something out of the
    /// sandbox, what runs there is ended by its deadline only if it `is_rollback`: the turns of a switchback wait for it
    /// to end.
    fn swap(
        &self,
        loader: &mut Loader,
        accepted: Accepted,
        killed: bool,
        asked: Instant,
        is_rollback: bool,
    ) -> Arc<InForce> {
        let before = self.in_force.load_full();
        let conditions = (Timestamp::now(), killed);
        let exposures = Arc::clone(&loader.exposures);
        let swap = before.swap + 1;
        let mut next = InForce::new(accepted, &self.place, conditions, exposures, &self.started, swap);
        let directions = before.directions_to(&next);
        let leaves = is_rollback && directions.contains(&SwitchDirection::FromSandbox);
        next.rolled_back = if leaves { Some(next.since) } else { before.rolled_back };
        next.measured_by(&self.switches, directions);
        let (next, was_killed) = (Arc::new(next), before.killed);
        // Before anything is logged: a log that nobody reads blocks, and a switch doesn't wait for it.
        self.in_force.store(Arc::clone(&next));
        self.switches.swapped(swap, next.directions(), asked.elapsed());
        loader.retired.retain(|retired| retired.strong_count() > 0);
        loader.retired.push(Arc::downgrade(&before));
        drop(before);
        self.changed.notify_all();
        let (generation, mode) = (next.generation, next.mode());
        match (was_killed, next.killed) {
            (false, true) => {
                tracing::error!(generation, "the kill switch is engaged: everything runs {mode}")
            }
            (true, false) => tracing::warn!(generation, "the kill switch is released"),
            _ => {}
        }
        loader.tell(&next, conditions.0);
        tracing::info!(generation, swap = next.swap, mode = mode.as_str(), "policy in force");
        next
    }

    /// Follows the clock.
    fn refresh(&self) {
        let asked = Instant::now();
        let mut loader = self.lock();
        let before = self.in_force.load_full();
        if !before.holds_at(Timestamp::now()) {
            let (accepted, killed) = (before.accepted(), before.killed);
            drop(before);
            self.swap(&mut loader, accepted, killed, asked, true);
        }
    }

    /// Follows the kill switch: it was looked for at `asked`.
    fn kill_looked(&self, file: &Path, seen: io::Result<bool>, asked: Instant) {
        let mut loader = self.lock();
        let before = self.in_force.load_full();
        if before.policy.kill_file() != Some(file) || asked < loader.kill_looked {
            // Somebody has looked since, for this file or for another one.
            return;
        }
        let killed = loader.kill_seen(seen, before.killed);
        if killed != before.killed {
            let accepted = before.accepted();
            drop(before);
            self.swap(&mut loader, accepted, killed, asked, true);
        }
    }

    fn keep(&self, in_force: &InForce, bytes: &[u8]) {
        let Some(generations) = &self.generations else { return };
        if let Err(error) = generations.keep(in_force.generation, in_force.checksum, bytes) {
            tracing::warn!(
                generation = in_force.generation,
                "the policy in force could not be kept: a start with a bad file would go on with an older one: {error}"
            );
        }
    }

    fn refuse(&self, error: &LoadError) {
        self.lock().last_error = Some(error.clone());
        self.changed.notify_all();
        let in_force = self.in_force.load();
        let (generation, file) = (in_force.generation, in_force.policy.file());
        tracing::error!(
            generation,
            "policy file refused, the last good one ({file}) stays in force: {error}"
        );
        (self.on_reload)(Err(error));
    }
}

impl Loader {
    /// Whether the kill switch is engaged; as `before` where that can't be seen, which the log says once.
    fn kill_seen(&mut self, seen: io::Result<bool>, before: bool) -> bool {
        let error = seen.as_ref().err().map(ToString::to_string);
        if let Some(error) = error.as_ref().filter(|_| self.kill_error != error) {
            let state = if before { "engaged" } else { "not engaged" };
            tracing::error!(
                "the kill switch's file can't be looked for, so the switch stays {state}: {error}"
            );
        }
        self.kill_error = error;
        seen.unwrap_or(before)
    }

    /// Whether every rollout that holds something here is in `next` as it was: with its modes, and for this subnet.
    fn allows(&self, before: &Policy, next: &Policy, subnet: &str) -> Result<(), LoadError> {
        let same = |id: &str| {
            let next = next.rollout(id).filter(|rollout| rollout.covers(subnet));
            let modes = |rollout: &RolloutRule| (rollout.candidate, rollout.control);
            // One that no policy had is not this one's to keep.
            before.rollout(id).is_none_or(|before| next.is_some_and(|next| modes(next) == modes(before)))
        };
        let holds = |(_, exposure): &(&String, &Exposure)| {
            !exposure.released && (exposure.latched || exposure.step.is_some())
        };
        let mut held = self.exposures.rollouts.iter().filter(holds).map(|(id, _)| id);
        match held.find(|id| !same(id)) {
            Some(id) => Err(LoadError::Held { rollout: id.clone() }),
            None => Ok(()),
        }
    }

    /// Says what there is to know of a policy, once.
    fn tell(&mut self, in_force: &InForce, at: Timestamp) {
        let notices = in_force.policy.notices(at);
        let notices: HashSet<String> = notices.iter().map(ToString::to_string).collect();
        for notice in notices.difference(&self.told) {
            tracing::warn!(generation = in_force.generation, "{notice}");
        }
        self.told = notices;
    }
}
