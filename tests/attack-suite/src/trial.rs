//! An attack of a worker on the kernel and the machine: in both phases under the real locks, against each layer alone,
//! and where nothing stops it.

use std::os::fd::OwnedFd;

use hostile::{Call, Order, Own};
use sandbox_os::{Ended, Layers};

use crate::stage::{Hostile, SIGSEGV, SIGSYS, Said, Setting, Stage, borrowed};
use crate::table::{Control, Phase, Rows};

/// What an attack is aimed at, made anew for each attempt, and how the suite sees whether it worked.
pub struct Scene {
    /// What the worker is told to do.
    pub order: Order,
    /// Descriptors that it is given with it (where it may take any).
    pub files: Vec<OwnedFd>,
    /// Whether the effect was obtained, from outside as far as it shows there. What the worker says is evidence only
    /// where it could not know otherwise.
    pub obtained: Evidence,
}

/// Looks whether an effect was obtained.
pub type Evidence = Box<dyn FnMut(&Said, &Hostile) -> bool>;

impl Scene {
    /// System calls, with the bytes that their arguments point into.
    #[must_use]
    pub fn calls(
        calls: &[Call],
        text: &[u8],
        obtained: impl FnMut(&Said, &Hostile) -> bool + 'static,
    ) -> Self {
        let order = Order::Calls { calls: calls.to_vec(), text: text.to_vec() };
        Self { order, files: Vec::new(), obtained: Box::new(obtained) }
    }

    /// A routine of the worker's.
    #[must_use]
    pub fn routine(
        name: &str,
        numbers: [u64; 4],
        obtained: impl FnMut(&Said, &Hostile) -> bool + 'static,
    ) -> Self {
        Self { order: Order::routine(name, numbers), files: Vec::new(), obtained: Box::new(obtained) }
    }

    /// With a descriptor, which becomes the worker's lowest free number.
    #[must_use]
    pub fn given(mut self, file: impl Into<OwnedFd>) -> Self {
        self.files.push(file.into());
        self
    }
}

/// Sets a scene for a worker that is there already.
pub type Setter = Box<dyn Fn(&Stage, &Hostile) -> Scene>;

/// One way to make an attack.
pub struct Way {
    /// Its name, shown when something isn't as it should be, and used by [`Alone::only`].
    pub name: &'static str,
    /// Sets the scene.
    pub scene: Setter,
    /// Where the control is made.
    pub control: Setting,
    /// Why only root can make it.
    pub needs_root: Option<&'static str>,
}

impl Way {
    /// A way whose control is made with no layer at all.
    #[must_use]
    pub fn new(name: &'static str, scene: impl Fn(&Stage, &Hostile) -> Scene + 'static) -> Self {
        Self { name, scene: Box::new(scene), control: Setting::OPEN, needs_root: None }
    }

    /// With a control that has some layers, because the attack needs them or the machine does.
    #[must_use]
    pub fn control(mut self, control: Setting) -> Self {
        self.control = control;
        self
    }

    /// Only root can make it.
    #[must_use]
    pub fn needs_root(mut self, why: &'static str) -> Self {
        self.needs_root = Some(why);
        self
    }
}

/// How an attack that is stopped shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The filter kills the worker.
    Sigsys,
    /// The processor's fault kills the worker (a clock that is shut off), or the filter does when a handler goes on
    /// to make a call.
    Fault,
    /// The kernel kills it for memory.
    OutOfMemory,
    /// The worker ends like this.
    Death(Ended),
    /// The kernel refuses with one of these error numbers.
    Errno(&'static [i32]),
    /// Not at all: the call may succeed, and has no effect.
    NoEffect,
}

impl Stop {
    fn shows(self, said: &Said) -> bool {
        match (self, said) {
            (Self::Sigsys, Said::Died(how)) => *how == SIGSYS,
            (Self::Fault, Said::Died(how)) => [SIGSEGV, SIGSYS].contains(how),
            (Self::OutOfMemory, Said::Died(how)) => *how == Ended::Signal(libc::SIGKILL),
            (Self::Death(expected), Said::Died(how)) => *how == expected,
            (Self::Errno(expected), Said::Refused(errno)) => expected.contains(errno),
            (Self::NoEffect, _) => true,
            _ => false,
        }
    }
}

/// One layer alone, everything else left out.
pub struct Alone {
    layer: &'static str,
    setting: Setting,
    phase: Phase,
    stop: Stop,
    ways: Option<&'static [&'static str]>,
    needs_root: Option<&'static str>,
}

impl Alone {
    /// A layer of the launcher's.
    #[must_use]
    pub fn layer(layer: &'static str, layers: Layers, stop: Stop) -> Self {
        Self {
            layer,
            setting: Setting::of(layers, Own::NOTHING),
            phase: Phase::None,
            stop,
            ways: None,
            needs_root: None,
        }
    }

    /// Everything that the launcher does except its filter, and nothing that the worker does: what holds if every filter
    /// falls.
    #[must_use]
    pub fn without_filters(stop: Stop) -> Self {
        Self::layer("all but the filters", Layers::ALL.without(Layers::SETUP), stop)
    }

    /// Something that the worker does to itself.
    #[must_use]
    pub fn own(layer: &'static str, own: Own, stop: Stop) -> Self {
        Self { setting: Setting::of(Layers::NONE, own), ..Self::layer(layer, Layers::NONE, stop) }
    }

    /// It stops these ways; others need another layer.
    #[must_use]
    pub fn only(mut self, ways: &'static [&'static str]) -> Self {
        self.ways = Some(ways);
        self
    }

    /// Beside layers without which the attack can't be made.
    #[must_use]
    pub fn beside(mut self, layers: Layers) -> Self {
        if let crate::stage::Start::With(alone) = self.setting.start {
            self.setting.start = crate::stage::Start::With(alone | layers);
        }
        self
    }

    /// Only root has the layer, or it stops only root's worker.
    #[must_use]
    pub fn needs_root(mut self, why: &'static str) -> Self {
        self.needs_root = Some(why);
        self
    }

    fn stops(&self, way: &Way) -> bool {
        self.ways.is_none_or(|ways| ways.contains(&way.name))
    }
}

/// An attack of a worker.
pub struct Trial {
    ways: Vec<Way>,
    phases: &'static [Phase],
    full: (&'static str, Stop),
    alone: Vec<Alone>,
}

impl Trial {
    /// By system calls, all of which either filter stops alone.
    #[must_use]
    pub fn of_calls(ways: Vec<Way>) -> Self {
        let alone = vec![
            Alone { phase: Phase::Load, ..Alone::own("LOAD filter alone", Own::LOAD, Stop::Sigsys) },
            Alone { phase: Phase::Run, ..Alone::own("RUN filter alone", Own::RUN, Stop::Sigsys) },
        ];
        Self { ways, phases: &[Phase::Load, Phase::Run], full: ("filter", Stop::Sigsys), alone }
    }

    /// Stopped by something else than the filters.
    #[must_use]
    pub fn stopped_by(layer: &'static str, stop: Stop, ways: Vec<Way>) -> Self {
        Self { ways, phases: &[Phase::Load, Phase::Run], full: (layer, stop), alone: Vec::new() }
    }

    /// Only in RUN: LOAD allows it by design.
    #[must_use]
    pub fn in_run_alone(mut self) -> Self {
        self.phases = &[Phase::Run];
        self.alone.retain(|alone| alone.phase != Phase::Load);
        self
    }

    /// Also stopped by one layer alone.
    #[must_use]
    pub fn alone(mut self, alone: Alone) -> Self {
        self.alone.push(alone);
        self
    }

    /// Makes all attempts and adds their rows.
    pub fn perform(&self, stage: &Stage, rows: &mut Rows) {
        let mut possible = Vec::new();
        for way in &self.ways {
            match way.needs_root {
                Some(why) if !stage.root => rows.reduced(way.name, why),
                _ => possible.push(way),
            }
        }
        if possible.is_empty() {
            return;
        }
        let control = possible.iter().try_for_each(|way| works(stage, way)).map(|()| Control::Fired);
        let (layer, stop) = self.full;
        for &phase in self.phases {
            let (setting, name) = match phase {
                Phase::Run => (Setting::RUN, "RUN"),
                Phase::Load | Phase::None => (Setting::LOAD, "LOAD"),
            };
            let stopped_by = if layer == "filter" { format!("{name} filter") } else { layer.to_owned() };
            let contained = possible.iter().try_for_each(|way| stopped(stage, way, setting, stop));
            rows.add(phase, stopped_by, &control, contained);
        }
        for alone in &self.alone {
            if let Some(why) = alone.needs_root.filter(|_| !stage.root) {
                rows.reduced(alone.layer, why);
                continue;
            }
            let stops: Vec<_> = possible.iter().filter(|way| alone.stops(way)).collect();
            if stops.is_empty() {
                rows.reduced(alone.layer, "the ways that it stops are root's");
                continue;
            }
            // A layer that stops some ways is not said to stop all.
            let stopped_by = match (stops.as_slice(), self.ways.len()) {
                (some, all) if some.len() == all => alone.layer.to_owned(),
                ([one], _) => format!("{} ({})", alone.layer, one.name),
                (some, all) => format!("{} ({} of {all} ways)", alone.layer, some.len()),
            };
            let contained = stops.iter().try_for_each(|way| stopped(stage, way, alone.setting, alone.stop));
            rows.add(alone.phase, stopped_by, &control, contained);
        }
    }
}

/// Makes one attempt: whether it worked, and what the worker said.
///
/// # Errors
/// What kept the worker from making it.
pub fn attempt(stage: &Stage, way: &Way, setting: Setting) -> Result<(bool, Said), String> {
    let mut worker = stage.worker(setting).map_err(|why| format!("{}: {why}", way.name))?;
    let mut scene = (way.scene)(stage, &worker);
    let said = worker.ask(&scene.order, &borrowed(&scene.files));
    let obtained = (scene.obtained)(&said, &worker);
    // First the attacker: as long as it traces a victim, nobody else can reap that.
    drop(worker);
    Ok((obtained, said))
}

/// The control: where nothing stops it, it works.
///
/// # Errors
/// What was seen instead.
pub fn works(stage: &Stage, way: &Way) -> Result<(), String> {
    match attempt(stage, way, way.control)? {
        (true, _) => Ok(()),
        (false, said) => Err(format!("{}: no effect was seen: {}", way.name, shown(&said))),
    }
}

/// In this setting it doesn't work, and is stopped as it should be.
///
/// # Errors
/// What was seen instead.
pub fn stopped(stage: &Stage, way: &Way, setting: Setting, stop: Stop) -> Result<(), String> {
    match attempt(stage, way, setting)? {
        (true, said) => Err(format!("{}: it worked: {}", way.name, shown(&said))),
        (false, said) if stop.shows(&said) => Ok(()),
        (false, said) => Err(format!("{}: not stopped by {stop:?}: {}", way.name, shown(&said))),
    }
}

/// Without the buffer.
fn shown(said: &Said) -> String {
    match said {
        Said::Done { results, .. } => format!("the worker says that it worked: {results:x?}"),
        Said::Refused(0) => "nothing was found".into(),
        Said::Refused(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
        Said::Died(how) => how.to_string(),
        Said::Silent => "the worker neither answers nor dies".into(),
    }
}
