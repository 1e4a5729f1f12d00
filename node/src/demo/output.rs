//! What the demo shows: progress while it runs, the comparison at its end.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rollout::ShadowCounts;
use sandbox_host::Confinement;
use serde_json::json;

use super::switch::Records;
use crate::Recorded;
use crate::load::Counts;

/// A bar on a terminal, plain lines elsewhere. With JSON on standard output both go to standard error.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    messages: u64,
    /// Tenths of the messages that a plain line has told of.
    tenths_told: Cell<u64>,
    closed: Cell<bool>,
    to_stderr: bool,
}

impl Progress {
    pub(super) fn new(messages: u64, to_stderr: bool) -> Self {
        let terminal = if to_stderr { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let target = if to_stderr { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::stdout() };
        let bar = terminal.then(|| {
            let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} answered, {eta} left")
                .expect("the template is valid");
            ProgressBar::with_draw_target(Some(messages), target).with_style(style)
        });
        Self { bar, messages, tenths_told: Cell::new(0), closed: Cell::new(false), to_stderr }
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) {
        let written = match &self.bar {
            Some(bar) => {
                bar.println(line);
                Ok(())
            }
            None if self.to_stderr => writeln!(io::stderr(), "{line}"),
            None => writeln!(io::stdout(), "{line}"),
        };
        if written.is_err() {
            self.closed.set(true);
        }
    }

    /// Whether whoever watched has gone away.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(super) fn advance(&self, answered: u64) {
        let Some(bar) = &self.bar else { return self.tell_tenths(answered) };
        bar.set_position(answered);
    }

    fn tell_tenths(&self, answered: u64) {
        let tenths = answered * 10 / self.messages;
        if tenths > self.tenths_told.replace(tenths) {
            self.say(&format!("{answered} of {} answered", self.messages));
        }
    }

    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The end of a demo.
pub(super) struct Summary {
    pub(super) rate: u32,
    pub(super) seconds: f64,
    pub(super) recorded: Recorded,
    /// The log, where it was asked for.
    pub(super) recorded_in: Option<PathBuf>,
    pub(super) counts: Counts,
    /// From intended start to answer.
    pub(super) answers: rollout::Table,
    /// In the mode's backend.
    pub(super) executions: rollout::Table,
    pub(super) shadow: ShadowCounts,
    pub(super) records: Records,
    pub(super) confinement: Option<Confinement>,
    /// Layers of confinement that workers lack here.
    pub(super) layers_off: Vec<&'static str>,
    pub(super) worst_gap: Duration,
    pub(super) state_root: [u8; 32],
    /// The same input without a switch; `None`: it wasn't run.
    pub(super) never_switched: Option<NeverSwitched>,
    pub(super) interrupted: bool,
}

/// The run that the demo is compared with.
pub(super) struct NeverSwitched {
    pub(super) state_root: [u8; 32],
    /// The first difference, in words.
    pub(super) difference: Option<String>,
}

impl Summary {
    /// Whether everything is as it must be.
    pub(super) fn passed(&self) -> bool {
        self.faults().is_empty()
    }

    fn faults(&self) -> Vec<String> {
        let Counts { rejected, lost, applied_twice, .. } = self.counts;
        let mut faults = Vec::new();
        if self.interrupted {
            faults.push("stopped before the end".to_owned());
        }
        for (count, what) in [
            (rejected, "rejected"),
            (lost, "lost"),
            (applied_twice, "applied twice"),
            (self.shadow.diverged, "different in the two modes"),
        ] {
            if count > 0 {
                faults.push(format!("{count} messages were {what}"));
            }
        }
        for switch in self.records.switches.iter().filter(|switch| switch.took.is_none()) {
            faults.push(format!("no message was committed in mode {} after the switch to it", switch.to));
        }
        if let Some(NeverSwitched { state_root, difference }) = &self.never_switched {
            if *state_root != self.state_root {
                faults.push("the state differs from that of the run that never switched".to_owned());
            }
            if let Some(difference) = difference {
                faults.push(format!("the run that never switched differs {difference}"));
            }
        }
        if self.records.killed.is_empty() && !self.interrupted {
            faults.push("no worker was killed".to_owned());
        }
        faults
    }

    /// Writes it to standard output.
    pub(super) fn print(&self, as_json: bool) -> io::Result<()> {
        let text = if as_json { format!("{:#}\n", self.json()) } else { self.text() };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a String takes it");
        line(format_args!("\nTime of an execution in its backend\n{}", self.executions));
        line(format_args!("\nTime of an answer, from the message's intended start\n{}", self.answers));
        line(format_args!(
            "\nSwitches, from the save of the policy file to the first message committed in the new mode"
        ));
        for switch in &self.records.switches {
            match switch.took {
                Some(took) => {
                    line(format_args!("  to {:<12} {:>9.1} ms", switch.to, took.as_secs_f64() * 1e3))
                }
                None => line(format_args!("  to {:<12} never took effect", switch.to)),
            }
        }
        let Counts { sent, answered, rejected, lost, applied_twice } = self.counts;
        line(format_args!("\nworst gap between answers  {:.1} ms", self.worst_gap.as_secs_f64() * 1e3));
        line(format_args!("workers killed             {}", self.records.killed.len()));
        line(format_args!(
            "messages                   sent {sent}, answered {answered}, rejected {rejected}, lost {lost}, applied twice {applied_twice}"
        ));
        let ShadowCounts { offered, equal, diverged, failed, .. } = self.shadow;
        line(format_args!(
            "run in shadow              {offered}: equal {equal}, different {diverged}, not compared {}",
            self.shadow.let_go() + failed
        ));
        line(format_args!(
            "load                       {:.1} s at {} a second asked, {:.0} reached, {} rounds",
            self.seconds,
            self.rate,
            answered as f64 / self.seconds.max(1e-9),
            self.recorded.rounds
        ));
        let confinement = self.confinement.as_ref().map_or("unknown".into(), ToString::to_string);
        line(format_args!("sandbox confinement        {confinement}"));
        line(format_args!("state root                 {}", hex::encode(self.state_root)));
        match &self.never_switched {
            Some(NeverSwitched { state_root, difference }) => {
                let equal = *state_root == self.state_root && difference.is_none();
                let verdict = if equal { "equal" } else { "DIFFERENT" };
                line(format_args!("the same, never switched   {}  {verdict}", hex::encode(state_root)));
            }
            None => line(format_args!("the same, never switched   not run")),
        }
        if let Some(path) = &self.recorded_in {
            line(format_args!("recorded in                {}: {}", path.display(), self.recorded));
        }
        for fault in self.faults() {
            line(format_args!("FAILED: {fault}"));
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let switches: Vec<_> = self
            .records
            .switches
            .iter()
            .map(|switch| json!({ "to": switch.to.as_str(), "milliseconds": switch.took.map(|took| took.as_secs_f64() * 1e3) }))
            .collect();
        json!({
            "passed": self.passed(),
            "faults": self.faults(),
            "rate": self.rate,
            "seconds": self.seconds,
            "rounds": self.recorded.rounds,
            "messages": self.counts,
            "executions_ns": self.executions.to_json(),
            "answers_ns": self.answers.to_json(),
            "switches": switches,
            "workers_killed": self.records.killed.len(),
            "sandbox_confinement": self.confinement.as_ref().map(ToString::to_string),
            "sandbox_layers_off": self.layers_off,
            "worst_gap_ms": self.worst_gap.as_secs_f64() * 1e3,
            "shadow": { "compared": self.shadow.equal + self.shadow.diverged, "diverged": self.shadow.diverged,
                "dropped": self.shadow.let_go(), "failed": self.shadow.failed },
            "state_root": hex::encode(self.state_root),
            "state_root_never_switched": self.never_switched.as_ref().map(|never| hex::encode(never.state_root)),
            "recorded_in": self.recorded_in,
            "interrupted": self.interrupted,
        })
    }
}
