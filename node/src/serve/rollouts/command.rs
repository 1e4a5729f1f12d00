//! What people ask for.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use axum::http::StatusCode;
use rollout::audit::Source;
use rollout::machine::Event;
use rollout::store::Line;
use rollout::{Checksum, Trigger};
use serde_json::{Value, json};

use super::super::commands::{Ask, Command, Refused, Verb};
use super::{By, Driver, now_ms, view};

type Answer = Result<Value, Refused>;

fn conflict(why: impl Into<String>) -> Refused {
    Refused::new(StatusCode::CONFLICT, why)
}

impl Driver {
    /// Does what is asked, or says why not.
    pub(super) fn command(&mut self, command: &Command) -> Answer {
        if self.policy.reason_required() && command.reason.is_none() {
            return Err(Refused::new(
                StatusCode::FORBIDDEN,
                "the policy asks for a reason with every command: give --reason",
            ));
        }
        if let Some(expected) = command.if_generation.filter(|expected| *expected != self.generation) {
            return Err(conflict(format!("generation {} is in force, not {expected}", self.generation)));
        }
        let by = By {
            actor: command.actor.clone(),
            source: Source::Cli,
            reason: command.reason.clone(),
            command: match &command.verb {
                Verb::Rollout(_, ask) => Some(ask.as_str()),
                Verb::Kill(_) | Verb::StopLine(_) => None,
            },
        };
        match &command.verb {
            Verb::Rollout(id, ask) => self.ask(id, *ask, &by, command.dry_run),
            Verb::Kill(engage) => self.kill(*engage, &by, command.dry_run),
            Verb::StopLine(stop) => self.stop_line(*stop, &by, command.dry_run),
        }
    }

    fn ask(&mut self, id: &str, ask: Ask, by: &By, dry_run: bool) -> Answer {
        let Some(driven) = self.rollouts.get(id) else {
            let known: Vec<_> = self.rollouts.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let why = format!(
                "there is no rollout `{id}` for subnet {} in the policy file; known: {known}",
                self.subnet
            );
            return Err(Refused::new(StatusCode::NOT_FOUND, why));
        };
        let event = match ask {
            Ask::Start => Event::Start,
            Ask::Pause => Event::Pause,
            Ask::Resume => Event::Resume,
            Ask::Promote(promotion) => Event::Promote(promotion),
            Ask::Abort => Event::Abort,
            Ask::Acknowledge => Event::Acknowledge,
            Ask::Retry => Event::Retry,
            Ask::Finish => Event::Finish,
        };
        if driven.rule.is_none() && !matches!(ask, Ask::Abort | Ask::Acknowledge | Ask::Pause) {
            return Err(conflict(format!("the policy file has no [rollouts.{id}] any more")));
        }
        if self.killed && matches!(ask, Ask::Start | Ask::Resume | Ask::Promote(_) | Ask::Retry) {
            return Err(conflict("the kill switch is engaged: `bulkhead kill off` first"));
        }
        let from = driven.state.phase();
        let (next, effects) = driven.state.clone().step(event.clone(), now_ms());
        if let Some(rollout::machine::Effect::Refused(refusal)) = effects.first() {
            let phase = view::word(from);
            return Err(conflict(format!("{id} is {phase}: {refusal}; next: {}", self.next(id))));
        }
        if dry_run {
            let (from, to) = (view::word(from), view::word(next.phase()));
            return Ok(json!({
                "said": format!("{id}: would go {from} -> {to}"), "id": id, "from": from, "phase": to,
                "dry_run": true, "generation": self.generation,
            }));
        }
        if ask == Ask::Finish {
            self.finish_file(id)?;
        }
        if let Some(refusal) = self.step(id, event, by) {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let why = self.trouble.as_deref().unwrap_or_default();
            return Err(Refused::new(status, format!("{id}: {refusal}: {why}; nothing was done")));
        }
        if matches!(ask, Ask::Acknowledge) {
            // It enters no phase, and is to be seen all the same.
            let entry = self.entry(by, "ack");
            self.note(rollout::audit::Entry { subject: Some(id.to_owned()), ..entry });
        }
        let to = self.rollouts.get(id).map_or(next.phase(), |driven| driven.state.phase());
        let (from, to) = (view::word(from), view::word(to));
        let went = if from == to { to.to_owned() } else { format!("{from} -> {to}") };
        Ok(json!({
            "said": format!("{id}: {went}; next: {}", self.next(id)), "id": id, "from": from, "phase": to,
            "dry_run": false, "generation": self.generation,
        }))
    }

    /// The kill switch is its file: it works with this process down, too.
    fn kill(&mut self, engage: bool, by: &By, dry_run: bool) -> Answer {
        let Some(file) = self.policy.kill_file().map(Path::to_owned) else {
            return Err(conflict("the policy file has no [kill_switch]"));
        };
        let done = match (engage, dry_run) {
            (_, true) => Ok(()),
            (true, false) => {
                let text = format!("{}: {}\n", by.actor, by.reason.as_deref().unwrap_or("no reason given"));
                File::create(&file).and_then(|mut file| file.write_all(text.as_bytes()))
            }
            (false, false) => fs::remove_file(&file),
        };
        match done {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound || engage => {
                return Err(conflict(format!("{}: {error}", file.display())));
            }
            Ok(()) | Err(_) => {}
        }
        if !dry_run {
            let action = if engage { "kill-on" } else { "kill-off" };
            self.note(self.entry(by, action));
        }
        let said = match (engage, dry_run) {
            (true, false) => "is engaged",
            (false, false) => "is released",
            (true, true) => "would be engaged",
            (false, true) => "would be released",
        };
        Ok(
            json!({ "said": format!("the kill switch {said}: {}", file.display()), "engaged": engage, "dry_run": dry_run }),
        )
    }

    fn stop_line(&mut self, stop: bool, by: &By, dry_run: bool) -> Answer {
        let line =
            Line { stopped: stop.then(|| by.reason.clone().unwrap_or_else(|| "no reason given".into())) };
        if !dry_run {
            self.store
                .save_line(&line)
                .map_err(|error| Refused::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
            let action = if stop { "line-stopped" } else { "line-released" };
            self.note(self.entry(by, action));
            self.line = line;
        }
        let said = match (stop, dry_run) {
            (true, false) => "the line is stopped: no step begins",
            (false, false) => "the line goes on",
            (true, true) => "the line would be stopped: no step would begin",
            (false, true) => "the line would go on",
        };
        Ok(json!({ "said": said, "stopped": stop, "dry_run": dry_run }))
    }

    /// Writes what the rollout came to into the policy file: the candidate for its subnets, and no rollout.
    fn finish_file(&mut self, id: &str) -> Result<(), Refused> {
        let Some(rule) = self.policy.rollout(id) else { return Ok(()) };
        let failed =
            |why: String| conflict(format!("the policy file can't be rewritten: {why}; nothing was done"));
        // Through a link to where the file is: the link stays.
        let path = fs::canonicalize(&self.config).map_err(|error| failed(error.to_string()))?;
        let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        if Checksum::of(text.as_bytes()) != self.board.nodes()[0].instruments.live().load().checksum {
            return Err(failed("it is not the one that is in force: `bulkhead config reload` first".into()));
        }
        if rule.steps.iter().flat_map(|step| &step.subnets).any(|subnet| *subnet != self.subnet) {
            return Err(failed(
                "the rollout covers other subnets too: rewrite it when all have completed".into(),
            ));
        }
        let text = rollout::finished(&text, rule).map_err(&failed)?;
        let name = format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy());
        let new = path.with_file_name(name);
        let written = File::create(&new).and_then(|mut file| {
            file.set_permissions(fs::metadata(&path)?.permissions())?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            // The state says finished from here on, so the file has to outlive a crash.
            path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
        });
        written.map_err(|error| failed(error.to_string()))?;
        for node in self.board.nodes() {
            let reloaded = node.instruments.live().reload(Trigger::Request);
            reloaded.map_err(|error| {
                conflict(format!("the policy file was rewritten, and is refused: {error}"))
            })?;
        }
        Ok(())
    }
}
