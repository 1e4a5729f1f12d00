//! What it costs a message that its phases are measured.

use std::sync::Arc;

use execution::{MessageId, MessageKey, RoundObserver};
use in_process::{InProcess, InProcessOptions};
use rollout::{LivePolicy, Mode, Recorder, Sandbox, Selector};

use super::{Bench, CORE};
use crate::canister::Canister;
use crate::modules::{self, Heap, WASM_PAGE_BYTES};
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Variant, interleaved};

const ROUNDS: usize = 801;
/// Messages of a sample: of each sixteenth a clock is read.
const MESSAGES: u32 = 320;
/// What measuring may add to the shortest message.
const AGAINST_UNOBSERVED: Target = Target::AtMost(1.02);
/// How far two unobserved canisters may be apart.
const CONTROL: f64 = 0.01;

/// A canister on a selector, as a node has it.
struct Selected {
    selector: Selector,
    canister: Canister,
    sent: u64,
}

impl Selected {
    fn new(bench: &Bench, index: u64) -> Result<Self, String> {
        let backend = Arc::new(InProcess::new(bench.engine.clone(), &InProcessOptions::default()));
        let none = Sandbox::Unavailable("not here".into());
        let live = LivePolicy::fixed(Mode::InProcess);
        let selector = Selector::new(live, backend, none, Arc::new(Recorder::new()));
        let text = modules::memory(Heap::Bits32, WASM_PAGE_BYTES, 0);
        Ok(Self { selector, canister: Canister::from_text(&*bench.compiler, &text, index)?, sent: 0 })
    }

    fn unobserved(&mut self) -> Result<(), String> {
        self.canister.update(&self.selector, "empty")
    }

    /// A message with all that a subnet tells of it.
    fn observed(&mut self, id: &execution::Principal) -> Result<(), String> {
        self.sent += 1;
        let mut message = [0; 32];
        message[..8].copy_from_slice(&self.sent.to_le_bytes());
        let key = MessageKey::of_ingress(&MessageId(message));
        self.selector.ready(key);
        self.selector.begun(key, id, "update");
        self.canister.update(&self.selector, "empty")?;
        self.selector.checked(self.canister.last_id());
        self.selector.committed(self.canister.last_id());
        Ok(())
    }
}

/// Warm empty updates in-process through the selector: observed against unobserved.
pub(super) fn measured(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::executor(CORE)?;
    let [mut plain, mut observed, mut control] =
        [Selected::new(bench, 1)?, Selected::new(bench, 2)?, Selected::new(bench, 3)?];
    let id = Canister::id(2);
    let (mut one, mut two, mut three) =
        (|| plain.unobserved(), || observed.observed(&id), || control.unobserved());
    let variants: &mut [Variant<'_>] = &mut [&mut one, &mut two, &mut three];
    let samples = interleaved(ROUNDS, MESSAGES, variants)?;
    let [limit, measured, again] = [0, 1, 2].map(|index| samples[index].median());
    Ok(vec![Finding::new(
        "measured",
        &Compared { limit, measured, unit: Unit::Time },
        AGAINST_UNOBSERVED,
        (again / limit - 1.0).abs() < CONTROL,
        format!(
            "an empty update, warm, in-process, through the selector, with its queue, backend, check and commit \
             measured, one in {}, against one without",
            rollout::SAMPLED
        ),
    )])
}
