//! What the suite says: a row for each attack, phase and way of stopping it.

use std::fmt::Write;

use serde::Serialize;

/// When a worker attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Phase {
    /// Under the LOAD lock.
    #[serde(rename = "LOAD")]
    Load,
    /// Under the RUN lock.
    #[serde(rename = "RUN")]
    Run,
    /// The attack isn't a locked worker's: it is on the node, the launcher or the compiler, or meets one of the
    /// launcher's layers alone.
    #[serde(rename = "-")]
    None,
}

/// Whether the same attack works where nothing stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// It does.
    Fired,
    /// This machine lacks what it needs (protection keys, core scheduling, or one of the three speculation controls).
    NotPossibleHere,
}

/// What came of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Its effect was not obtained, and what stopped it is what the row says.
    Contained,
    /// It was obtained, or something else stopped it.
    Escaped,
    /// The control didn't work, so that the attack proves nothing.
    ControlFailed,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `A1` to `A62`.
    pub id: &'static str,
    /// What it tries.
    pub attack: String,
    /// When.
    pub phase: Phase,
    /// What stops it.
    pub stopped_by: String,
    /// Whether it works where nothing does.
    pub control: Control,
    /// What came of it.
    pub result: Outcome,
    /// What was seen, if that isn't what it should be.
    #[serde(skip)]
    pub seen: Option<String>,
}

/// What an attack adds its rows to.
#[derive(Debug)]
pub struct Rows {
    id: &'static str,
    title: &'static str,
    rows: Vec<Row>,
    reductions: Vec<String>,
}

impl Rows {
    /// For the attack `id`, called `title`.
    #[must_use]
    pub fn of(id: &'static str, title: &'static str) -> Self {
        Self { id, title, rows: Vec::new(), reductions: Vec::new() }
    }

    /// A row. `control`: what was seen when the same attack was made where nothing stops it, `Err` if it didn't work
    /// there. `contained`: `Err` with what was seen if the attack worked, or was stopped by anything else.
    pub fn add(
        &mut self,
        phase: Phase,
        stopped_by: impl Into<String>,
        control: &Result<Control, String>,
        contained: Result<(), String>,
    ) {
        let (result, seen) = match (control, contained) {
            (Err(why), _) => (Outcome::ControlFailed, Some(format!("the control: {why}"))),
            (Ok(_), Err(seen)) => (Outcome::Escaped, Some(seen)),
            (Ok(_), Ok(())) => (Outcome::Contained, None),
        };
        self.rows.push(Row {
            id: self.id,
            attack: self.title.to_owned(),
            phase,
            stopped_by: stopped_by.into(),
            // The result says that it didn't.
            control: *control.as_ref().unwrap_or(&Control::Fired),
            result,
            seen,
        });
    }

    /// A row that this user can't have, and why: said, never left out.
    pub fn reduced(&mut self, what: &str, why: &str) {
        self.reductions.push(format!("{}: {what}: {why}", self.id));
    }
}

/// All rows of a run.
#[derive(Debug, Default, Serialize)]
pub struct Table {
    /// The rows.
    pub attacks: Vec<Row>,
    /// Rows that this user can't have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reductions: Vec<String>,
}

impl Table {
    /// Takes the rows of one attack.
    pub fn take(&mut self, rows: Rows) {
        self.attacks.extend(rows.rows);
        self.reductions.extend(rows.reductions);
    }

    /// Whether everything is as it must be.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.attacks.is_empty() && self.attacks.iter().all(|row| row.result == Outcome::Contained)
    }

    /// Header of the printed table.
    #[must_use]
    pub fn head() -> String {
        format!(
            "{:<4} {:<4}  {:<46} {:<17} {:<14}  {}\n",
            "id", "when", "stopped by", "control", "result", "attack"
        )
    }

    /// The last `from..` rows as text.
    #[must_use]
    pub fn lines(&self, from: usize) -> String {
        let mut text = String::new();
        for row in self.attacks.iter().skip(from) {
            let phase = match row.phase {
                Phase::Load => "LOAD",
                Phase::Run => "RUN",
                Phase::None => "-",
            };
            let control = match row.control {
                _ if row.result == Outcome::ControlFailed => "failed",
                Control::Fired => "fired",
                Control::NotPossibleHere => "not-possible-here",
            };
            let result = match row.result {
                Outcome::Contained => "contained",
                Outcome::Escaped => "ESCAPED",
                Outcome::ControlFailed => "CONTROL-FAILED",
            };
            let (id, stopped_by, attack) = (row.id, &row.stopped_by, &row.attack);
            // Writing to a string doesn't fail.
            let _ =
                writeln!(text, "{id:<4} {phase:<4}  {stopped_by:<46} {control:<17} {result:<14}  {attack}");
            if let Some(seen) = &row.seen {
                let _ = writeln!(text, "      seen: {seen}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(control: &Result<Control, String>, contained: Result<(), String>) -> Table {
        let mut rows = Rows::of("A1", "opens files");
        rows.add(Phase::Load, "LOAD filter", control, contained);
        let mut table = Table::default();
        table.take(rows);
        table
    }

    #[test]
    fn a_run_passes_only_if_every_attack_is_contained_and_every_control_fired() {
        assert!(table(&Ok(Control::Fired), Ok(())).passed());
        assert!(table(&Ok(Control::NotPossibleHere), Ok(())).passed());
        assert!(!table(&Ok(Control::Fired), Err("it was read".into())).passed());
        assert!(!table(&Err("nothing was read".into()), Ok(())).passed());
        assert!(!Table::default().passed(), "no attack proves nothing");
    }

    #[test]
    fn the_report_has_the_fields_and_words_that_readers_rely_on() {
        let json = serde_json::to_value(table(&Ok(Control::NotPossibleHere), Ok(()))).unwrap();
        let expected = serde_json::json!({ "attacks": [{
            "id": "A1", "attack": "opens files", "phase": "LOAD", "stopped_by": "LOAD filter",
            "control": "not-possible-here", "result": "contained",
        }] });
        assert_eq!(json, expected);
        let failed = table(&Err("nothing was read".into()), Ok(()));
        let json = serde_json::to_value(&failed).unwrap();
        assert_eq!(
            (&json["attacks"][0]["result"], &json["attacks"][0]["control"]),
            (&"control-failed".into(), &"fired".into())
        );
        assert!(
            failed.lines(0).contains("failed")
                && failed.lines(0).contains("seen: the control: nothing was read")
        );
    }
}
