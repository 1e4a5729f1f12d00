//! A subnet and its rounds, as a node runs them: messages are taken in, rounds run, answers are there.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_node::drun::InstallMode;
use bulkhead_node::management;
use execution::{
    Backend, Compiler, Ingress, IngressStatus, Limits, MessageId, Principal, QueryView, RoundReport,
    SchedulerOptions, Subnet, SubnetConfig, UserError,
};
use sandbox_os::tsc;

use crate::placement::pin;

/// Cycles of a new canister: enough for whatever a benchmark does.
const CYCLES: u128 = 1_000_000_000_000_000;
/// Time between two rounds: one that is full takes about so long, and the clock of a node that is always busy goes by
/// that.
const ROUND_NANOSECONDS: u64 = 1_000_000;
/// Time of the first round.
const FIRST_NANOSECONDS: u64 = 1_620_328_630_000_000_000;
/// Rounds that may pass before nothing is left to do.
const ROUNDS_MAX: usize = 1_000;

/// A subnet with its clock.
pub(crate) struct Rounds {
    subnet: Subnet,
    time: u64,
    nonce: u64,
}

impl Rounds {
    /// A subnet without canisters; each executor thread on a core of its own.
    pub(crate) fn new(limits: Limits, backend: Arc<dyn Backend>, compiler: Arc<dyn Compiler>) -> Self {
        let cores = sandbox_os::place::cores();
        let threads = cores.len();
        let place = move |number: usize| {
            tsc::may_be_shut();
            // Where that isn't permitted they run where the kernel puts them.
            let _not_permitted = pin(None, cores[number % cores.len()]);
        };
        let options = SchedulerOptions {
            threads,
            on_thread_start: Some(Arc::new(place)),
            ..SchedulerOptions::default()
        };
        let config = SubnetConfig { limits: Arc::new(limits), ..SubnetConfig::application() };
        let subnet = Subnet::new(config, backend, compiler, options);
        Self { subnet, time: FIRST_NANOSECONDS, nonce: 0 }
    }

    /// Makes a canister and installs `wasm` in it.
    pub(crate) fn install(&mut self, wasm: &[u8], arg: &[u8]) -> Result<Principal, String> {
        let canister = self
            .subnet
            .create_canister(Principal::anonymous(), None, CYCLES)
            .map_err(|error| error.to_string())?;
        let arg = management::install_code(InstallMode::Install, canister, wasm, arg, false);
        let message = self.submit(Principal::management_canister(), "install_code", &arg.into())?;
        self.finish(&[message])?;
        Ok(canister)
    }

    /// Takes a message in.
    pub(crate) fn submit(
        &mut self,
        receiver: Principal,
        method: &str,
        arg: &Arc<[u8]>,
    ) -> Result<MessageId, String> {
        self.offer(receiver, method, arg).map_err(|error| error.to_string())
    }

    /// Takes a message in, or says why not.
    pub(crate) fn offer(
        &mut self,
        receiver: Principal,
        method: &str,
        arg: &Arc<[u8]>,
    ) -> Result<MessageId, UserError> {
        self.nonce += 1;
        let message = Ingress {
            sender: Principal::anonymous(),
            receiver,
            method: method.into(),
            arg: Arc::clone(arg),
            nonce: self.nonce.to_be_bytes().into(),
        };
        self.subnet.submit(message)
    }

    /// Runs rounds until all of `messages` are answered with a reply.
    pub(crate) fn finish(&mut self, messages: &[MessageId]) -> Result<(), String> {
        self.drain()?;
        match messages.iter().map(|message| self.is_replied(message)).find(|replied| *replied != Ok(true)) {
            None => Ok(()),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) => Err("a benchmark message is not answered when nothing is left to do".into()),
        }
    }

    /// Runs rounds until nothing is left to do.
    pub(crate) fn drain(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS_MAX {
            if !self.round()?.more {
                return Ok(());
            }
        }
        Err(format!("something is left to do after {ROUNDS_MAX} rounds"))
    }

    /// Whether a message is answered, which is with a reply.
    pub(crate) fn is_replied(&self, message: &MessageId) -> Result<bool, String> {
        match self.subnet.status(message) {
            IngressStatus::Replied(_) => Ok(true),
            IngressStatus::Rejected(error) => Err(format!("a benchmark message was rejected: {error}")),
            IngressStatus::Unknown
            | IngressStatus::Received
            | IngressStatus::Processing
            | IngressStatus::Done => Ok(false),
        }
    }

    /// Messages of users that the subnet remembers.
    pub(crate) fn remembered(&self) -> usize {
        self.subnet.state().ingress.records.len()
    }

    /// The committed state, to be asked while rounds go on.
    pub(crate) fn queries(&self) -> QueryView {
        self.subnet.queries()
    }

    /// Moves the subnet's clock, as if nothing had been asked of it for so long.
    pub(crate) fn pass(&mut self, duration: Duration) {
        self.time += u64::try_from(duration.as_nanos()).expect("centuries are not passed");
    }

    /// Runs a round, in which nothing fails.
    pub(crate) fn round(&mut self) -> Result<RoundReport, String> {
        self.time += ROUND_NANOSECONDS;
        let report = tsc::may_be_shut_during(|| self.subnet.round(self.time, [0; 32]));
        match report.failures.first() {
            Some(failure) => Err(format!("{}: {}", failure.canister, failure.error)),
            None => Ok(report),
        }
    }
}
