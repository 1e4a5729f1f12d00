//! Clocks, and what the processor tells of itself.

use hostile::{Call, Own, call, text};

use super::Attack;
use crate::faults_on_cpuid;
use crate::trial::{Alone, Scene, Stop, Trial, Way};
use crate::witness::found;

pub(super) fn attacks() -> Vec<Attack> {
    vec![clocks(), processor()]
}

fn clocks() -> Attack {
    let read = |name, routine| {
        Way::new(name, move |_, _| {
            Scene::routine(routine, [0; 4], |said, _| found(said).is_some_and(|time| time > 0))
        })
    };
    let calls = |name, made: Call| {
        Way::new(name, move |_, _| {
            // An interval of one second, twice.
            let interval = [0, 0, 1, 0].iter().flat_map(|word: &u64| word.to_le_bytes()).collect::<Vec<u8>>();
            Scene::calls(&[made], &interval, |said, _| found(said).is_some())
        })
    };
    let instructions = move || {
        vec![
            read("rdtsc", "time-stamp-counter"),
            read("rdtscp", "time-stamp-counter-p"),
            read("vDSO", "vdso-clock"),
        ]
    };
    let system_calls = move || {
        vec![
            calls("clock_gettime", call(libc::SYS_clock_gettime, &[0, text(0)])),
            calls("gettimeofday", call(libc::SYS_gettimeofday, &[text(0), 0])),
            calls("timerfd_create", call(libc::SYS_timerfd_create, &[1, 0])),
            calls("setitimer", call(libc::SYS_setitimer, &[0, text(0), 0])),
            calls("timer_create", call(libc::SYS_timer_create, &[0, 0, text(0)])),
            calls("times", call(libc::SYS_times, &[0])),
            calls("getrusage", call(libc::SYS_getrusage, &[0, hostile::buffer(0)])),
            calls("nanosleep", call(libc::SYS_nanosleep, &[text(0), 0])),
            Way::new("vsyscall", |_, _| {
                Scene::routine("vsyscall-clock", [0; 4], |said, _| found(said).is_some_and(|time| time > 0))
            }),
        ]
    };
    Attack::once("A47", "reads a clock", move |stage, rows| {
        // Needs no system call: only the processor can refuse it.
        Trial::stopped_by("time-stamp counter off", Stop::Fault, instructions())
            .alone(Alone::own("time-stamp counter off alone", Own::CLOCKS, Stop::Fault))
            .perform(stage, rows);
        Trial::of_calls(system_calls()).perform(stage, rows);
    })
}

fn processor() -> Attack {
    let name = || Way::new("cpuid", |_, _| Scene::routine("cpuid", [0; 4], |said, _| found(said).is_some()));
    let trial = Trial::stopped_by("CPUID faulting", Stop::Fault, vec![name()]).alone(Alone::own(
        "CPUID faulting alone",
        Own::CLOCKS,
        Stop::Fault,
    ));
    Attack::once("A48", "asks which processor this is (cpuid)", move |stage, rows| {
        if faults_on_cpuid() {
            trial.perform(stage, rows);
        } else {
            rows.reduced("CPUID faulting", "this processor can't fault on CPUID");
        }
    })
}
