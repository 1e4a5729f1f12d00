//! The report of a run: a JSON object a line for each executed message.

use std::io::{self, Write};

use execution::{Ended, Executed};
use serde::Serialize;

use crate::node::Measured;

/// Writes JSON Lines.
pub struct Report<W> {
    out: W,
}

#[derive(Serialize)]
struct Entry<'a> {
    canister: String,
    kind: &'a str,
    method: Option<&'a str>,
    mode: Option<&'a str>,
    /// `reply` also where the entry point returned and no answer was due or given yet.
    outcome: &'static str,
    answered: bool,
    code: Option<String>,
    instructions: u64,
    dirty_heap_pages: u64,
    dirty_stable_pages: u64,
    duration_ns: Option<u64>,
    state_root: String,
}

impl<W: Write> Report<W> {
    /// A report to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Appends an executed message.
    ///
    /// # Errors
    /// Writing failed.
    pub fn append(
        &mut self,
        executed: &Executed,
        measured: Option<Measured>,
        state_root: &[u8; 32],
    ) -> io::Result<()> {
        let (outcome, code) = match &executed.ended {
            Ended::Reply | Ended::NoAnswer => ("reply", None),
            Ended::Reject(_) => ("reject", Some(execution::ErrorCode::CANISTER_REJECTED.to_string())),
            Ended::Trap(error) => ("trap", Some(error.code.to_string())),
        };
        let entry = Entry {
            canister: executed.canister.to_text(),
            kind: executed.kind,
            method: executed.method.as_deref(),
            mode: measured.map(|measured| measured.mode.as_str()),
            outcome,
            answered: !matches!(executed.ended, Ended::NoAnswer),
            code,
            instructions: executed.instructions,
            dirty_heap_pages: executed.heap_pages_dirty,
            dirty_stable_pages: executed.stable_pages_dirty,
            duration_ns: measured
                .map(|measured| u64::try_from(measured.duration.as_nanos()).unwrap_or(u64::MAX)),
            state_root: hex::encode(state_root),
        };
        serde_json::to_writer(&mut self.out, &entry)?;
        self.out.write_all(b"\n")
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// Writing failed.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}
