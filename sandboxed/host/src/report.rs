//! What confines a worker on this machine, layer by layer, each with the probe that showed it. The probes are real: a
//! worker is launched by the launcher and looked at from outside; others are asked to do what they must not be able to
//! do, and how they end is the answer.

mod machine;
mod process;

use std::sync::Arc;
use std::time::Duration;

use execution::BackendError;
use sandbox_os::Ended;
use sandbox_protocol::Attempt;

use crate::fault::Result;
use crate::launchers::Launchers;
use crate::options::SandboxOptions;
use crate::source::LauncherSource;
use crate::status::Registry;
use crate::worker::{Attempted, Worker};

pub use machine::Fact;

/// How much a layer is needed (`confinement.md` section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without it nothing runs sandboxed.
    Required,
    /// Without it the sandbox is reduced, and says so.
    Wanted,
    /// Taken where there is one.
    Opportunistic,
}

impl Need {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Wanted => "wanted",
            Self::Opportunistic => "opportunistic",
        }
    }
}

/// A layer, as found on this machine now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name.
    pub name: &'static str,
    /// How much it is needed.
    pub need: Need,
    /// Whether it is in force.
    pub on: bool,
    /// What showed that.
    pub probe: String,
    /// What to do where it is off; empty where nothing can be done.
    pub advice: &'static str,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The layers of a worker; none if no worker could be started.
    pub layers: Vec<Layer>,
    /// What of the machine matters beside them.
    pub machine: Vec<Fact>,
    /// Why no worker could be started.
    pub refused: Option<String>,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every layer that is required or wanted is on.
    Full,
    /// One that is wanted is off.
    Reduced,
    /// One that is required is off: nothing runs sandboxed.
    Refused,
}

impl Report {
    /// Examines workers as `launchers` start them.
    #[must_use]
    pub fn examine(launchers: &Arc<Launchers>) -> Self {
        let machine = machine::facts();
        match layers(launchers) {
            Ok(layers) => Self { layers, machine, refused: None },
            Err(fault) => Self { layers: Vec::new(), machine, refused: Some(fault.error.to_string()) },
        }
    }

    /// Layers of this need that are off.
    pub fn missing(&self, need: Need) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(move |layer| layer.need == need && !layer.on)
    }

    /// What it comes to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.refused.is_some() || self.missing(Need::Required).next().is_some() {
            Verdict::Refused
        } else if self.missing(Need::Wanted).next().is_some() {
            Verdict::Reduced
        } else {
            Verdict::Full
        }
    }
}

/// How long a worker may take over any step of this.
const PATIENCE: Duration = Duration::from_secs(10);
const SIGSYS: Ended = Ended::Signal(31);
/// How a worker ends by a fault outside of guest code: the engine's handler, which isn't in charge of it, asks for the
/// default action, and that call is in no list.
const FAULT: &[Ended] = &[Ended::Signal(11), SIGSYS];

/// An attempt that proves a layer.
struct Probe {
    name: &'static str,
    need: Need,
    attempt: Attempt,
    deed: &'static str,
    /// How a worker ends for which the layer is on.
    ends: &'static [Ended],
    /// Whether the layer is on too where the kernel refuses the deed and the worker lives.
    refusal: bool,
}

const PROBES: [Probe; 8] = [
    Probe {
        name: "seccomp: the LOAD list",
        need: Need::Required,
        attempt: Attempt::OutsideLoad,
        deed: "a call outside it",
        ends: &[SIGSYS],
        refusal: false,
    },
    Probe {
        name: "seccomp: the RUN list",
        need: Need::Required,
        attempt: Attempt::OutsideRun,
        deed: "a call that only LOAD has",
        ends: &[SIGSYS],
        refusal: false,
    },
    Probe {
        name: "no new executable memory in LOAD",
        need: Need::Required,
        attempt: Attempt::WriteAndExecute,
        deed: "a writable and executable mapping",
        ends: &[SIGSYS],
        refusal: false,
    },
    Probe {
        name: "no new executable memory in RUN",
        need: Need::Required,
        attempt: Attempt::ExecuteInRun,
        deed: "mprotect to executable",
        ends: &[SIGSYS],
        refusal: false,
    },
    Probe {
        name: "no time-stamp counter",
        need: Need::Wanted,
        attempt: Attempt::TimeStampCounter,
        deed: "rdtsc",
        ends: FAULT,
        refusal: false,
    },
    Probe {
        name: "no clock",
        need: Need::Wanted,
        attempt: Attempt::Clock,
        deed: "reading the time",
        ends: FAULT,
        refusal: false,
    },
    Probe {
        name: "no processor identity",
        need: Need::Opportunistic,
        attempt: Attempt::Cpuid,
        deed: "cpuid",
        ends: FAULT,
        refusal: false,
    },
    Probe {
        name: "written memory never executable (MDWE)",
        need: Need::Opportunistic,
        attempt: Attempt::WriteThenExecute,
        deed: "mprotect of written memory to executable",
        ends: &[],
        refusal: true,
    },
];

/// Launches workers and finds their layers.
fn layers(launchers: &Arc<Launchers>) -> Result<Vec<Layer>> {
    let options = SandboxOptions::default();
    let registry = Arc::new(Registry::new(options.bounds()));
    let source =
        LauncherSource::new(Arc::clone(launchers), options.group_bytes_max(), options.private_images);
    let launch = || Worker::launch(&source, &registry, PATIENCE, None);
    let worker = launch()?;
    let mut layers = process::layers(worker.process().pid(), &worker.process().layers())
        .map_err(|error| BackendError::Spawn(format!("a worker can't be looked at: {error}")))?;
    let ended = worker.end();
    layers.push(Layer {
        name: "killed and reaped by its handle (pidfd)",
        need: Need::Required,
        on: ended == Ended::Signal(9),
        probe: ended.to_string(),
        advice: "a kernel of version 5.4 or later",
    });
    for Probe { name, need, attempt, deed, ends, refusal } in PROBES {
        let (on, ended) = match launch()?.attempt(attempt, PATIENCE)? {
            Attempted::Ended(ended) => (ends.contains(&ended), ended.to_string()),
            Attempted::Outlived { done: true } => (false, "done".to_owned()),
            Attempted::Outlived { done: false } => (refusal, "refused by the kernel".to_owned()),
        };
        // What a signal stands for is explained elsewhere.
        let ended = ended.split(": ").next().unwrap_or_default();
        layers.push(Layer { name, need, on, probe: format!("{deed}: {ended}"), advice: "" });
    }
    // The sort is stable: what is needed most comes first.
    layers.sort_by_key(|layer| match layer.need {
        Need::Required => 0,
        Need::Wanted => 1,
        Need::Opportunistic => 2,
    });
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(found: &[(Need, bool)]) -> Report {
        let layer = |&(need, on)| Layer { name: "x", need, on, probe: String::new(), advice: "" };
        Report { layers: found.iter().map(layer).collect(), machine: Vec::new(), refused: None }
    }

    #[test]
    fn what_is_missing_decides_the_verdict() {
        use Need::{Opportunistic, Required, Wanted};
        let all = report(&[(Required, true), (Wanted, true), (Opportunistic, true)]);
        assert_eq!(all.verdict(), Verdict::Full);
        assert_eq!(report(&[(Required, true), (Opportunistic, false)]).verdict(), Verdict::Full);
        assert_eq!(report(&[(Wanted, false), (Required, true)]).verdict(), Verdict::Reduced);
        assert_eq!(report(&[(Wanted, false), (Required, false)]).verdict(), Verdict::Refused);
        let none = Report { refused: Some("no user".into()), ..all };
        assert_eq!(none.verdict(), Verdict::Refused);
    }
}
