//! Workers launched ahead of a step, while everything runs as before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rollout::Exposures;

use crate::Instruments;

/// How long that may take. Then the step is cut over to all the same.
const MAX: Duration = Duration::from_secs(5);
/// A canister that runs has no idle instance, and is met the next time: so long later.
const AGAIN: Duration = Duration::from_millis(20);
/// It is done when there was nothing to do so many times in a row.
const QUIET: u32 = 3;

/// A thread that launches them. Dropping this ends it after the worker that it is at; nobody waits for it.
pub(super) struct Prewarming {
    until: Instant,
    done: Arc<AtomicBool>,
}

impl Prewarming {
    /// Begins on all `nodes`, for what runs in the sandbox or in shadow under `exposures`. At most half of the switch's
    /// `deadline` goes for it.
    pub(super) fn start(
        nodes: Vec<Instruments>,
        exposures: Exposures,
        deadline: Duration,
    ) -> std::io::Result<Self> {
        let began = Instant::now();
        let until = began + MAX.min(deadline / 2);
        let done = Arc::new(AtomicBool::new(false));
        let wanted = Arc::downgrade(&done);
        std::thread::Builder::new().name("prewarm".into()).spawn(move || {
            let go_on = || Instant::now() < until && wanted.strong_count() > 0;
            launch(&nodes, &exposures, began, go_on);
            if let Some(done) = Weak::upgrade(&wanted) {
                done.store(true, Ordering::Release);
            }
        })?;
        Ok(Self { until, done })
    }

    /// Whether nothing more is waited for.
    pub(super) fn is_over(&self) -> bool {
        self.done.load(Ordering::Acquire) || Instant::now() >= self.until
    }
}

fn launch(nodes: &[Instruments], exposures: &Exposures, began: Instant, go_on: impl Fn() -> bool) {
    // With how many are ready; one that can have no more is left out from then on.
    let mut nodes: Vec<_> = nodes.iter().map(|node| (node, 0_usize, true)).collect();
    let mut quiet = 0;
    while quiet < QUIET && go_on() {
        let mut more = 0;
        for (node, ready, can) in nodes.iter_mut().filter(|(_, _, can)| *can) {
            match node.prewarm(exposures, &go_on) {
                Ok(new) => (more, *ready) = (more + new, *ready + new),
                Err(error) => {
                    // The next message that needs one tries again, and says what is wrong.
                    tracing::warn!("no further worker is launched ahead of the step: {error}");
                    *can = false;
                }
            }
        }
        quiet = if more == 0 { quiet + 1 } else { 0 };
        std::thread::sleep(AGAIN);
    }
    let took = began.elapsed();
    for (node, ready, _) in nodes.iter().filter(|(_, ready, _)| *ready > 0) {
        node.live().prewarmed(took);
        tracing::info!(workers = ready, ?took, "workers are ready for the step");
    }
}
