//! `bulkhead audit`: the log of what was done to the rollout, read without a node.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use rollout::audit::{
    Broken, Entry, FILE_NAME, LineHash, Record, Verified, VerifyError, last_seq, open_to_read, read_after,
    verify,
};
use serde_json::json;

use crate::cli::CommandError;

/// Entries that are read at once.
const CHUNK: usize = 256;

/// What may be done with an audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show the last entries: who did what, when and why
    #[command(after_help = "\
Under an entry stand the policy's generation and details, e.g. the keys that changed. With --json, lines
are printed as they stand in the log, with their hashes. What is shown is checked to be a chain; what is
before it is not: see `bulkhead audit verify`. A running node needn't stop for it.

Exit codes: 0 shown; 1 the log can't be read, or is broken where it was read.

Examples:
  bulkhead audit tail --state /var/lib/bulkhead
  bulkhead audit tail --state /var/lib/bulkhead -n 100 --json")]
    Tail(TailArgs),
    /// Check that nobody changed, removed, inserted or moved an entry
    #[command(after_help = "\
Each line has the hash of its own text and that of the line before. Prints how many entries there are and
the last hash: note it where nobody who can write the log can write. Entries that are cut off the end, and
a log whose hashes were all made anew, can only be found with such a hash: --expect-hash.

Exit codes: 0 whole; 1 broken: the first wrong line and what is wrong with it, or the log can't be read.

Examples:
  bulkhead audit verify --state /var/lib/bulkhead
  bulkhead audit verify --file audit.jsonl --expect-hash 5df6e0e2...
  bulkhead audit verify --state /var/lib/bulkhead --json")]
    Verify(VerifyArgs),
}

/// Which log.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct LogArgs {
    /// The state directory of a node
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The log itself
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl LogArgs {
    fn path(&self) -> PathBuf {
        match (&self.file, &self.state) {
            (Some(file), _) => file.clone(),
            (None, state) => state.iter().map(PathBuf::as_path).chain([FILE_NAME.as_ref()]).collect(),
        }
    }
}

/// What `tail` may be told.
#[derive(Debug, Args)]
pub struct TailArgs {
    #[command(flatten)]
    log: LogArgs,
    /// How many entries
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20)]
    lines: u64,
    /// Print the entries as they stand in the log, a JSON object a line
    #[arg(long)]
    json: bool,
}

/// What `verify` may be told.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    log: LogArgs,
    /// A hash that was noted before: one of the entries has to have it
    #[arg(long, value_name = "HEX", value_parser = hash)]
    expect_hash: Option<LineHash>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn hash(text: &str) -> Result<LineHash, &'static str> {
    LineHash::from_hex(text).ok_or("expected 64 hexadecimal digits")
}

/// Does it.
///
/// # Errors
/// The log can't be read, or is broken.
pub fn run(command: &AuditCommand) -> Result<(), CommandError> {
    match command {
        AuditCommand::Tail(arguments) => tail(arguments),
        AuditCommand::Verify(arguments) => check(arguments),
    }
}

fn tail(arguments: &TailArgs) -> Result<(), CommandError> {
    let path = arguments.log.path();
    let failed = |error: &dyn std::fmt::Display| CommandError::Failed(format!("{}: {error}", path.display()));
    let last = last_seq(&path).map_err(|error| failed(&error))?;
    if !arguments.json {
        print(&format!("{HEAD}\n"))?;
    }
    let mut after = last.saturating_sub(arguments.lines);
    // Those that come meanwhile are not waited for.
    while after < last {
        let chunk = usize::try_from(last - after).unwrap_or(CHUNK).min(CHUNK);
        let records = read_after(&path, after, chunk).map_err(|error| failed(&error))?;
        let Some(newest) = records.last() else { break };
        after = newest.seq;
        let shown = |record: &Record| if arguments.json { record.line.clone() + "\n" } else { row(record) };
        print(&records.iter().map(shown).collect::<String>())?;
    }
    Ok(())
}

const HEAD: &str =
    "     #  time                      actor         action            subject       from -> to, reason";

fn row(record: &Record) -> String {
    let Record { seq, entry, .. } = record;
    let Entry { time, actor, source: _, action, subject, from, to, reason, generation, details } = entry;
    let mut text = format!(
        "{seq:>6}  {time:.3}  {:<12}  {:<16}  {:<12}  ",
        shown(actor),
        shown(action),
        subject.as_deref().map_or_else(|| "-".to_owned(), shown)
    );
    let change = match (from, to) {
        (None, None) => String::new(),
        (from, to) => {
            [from, to].map(|text| text.as_deref().map_or_else(|| "-".to_owned(), shown)).join(" -> ")
        }
    };
    let parts = [Some(change).filter(|change| !change.is_empty()), reason.as_deref().map(shown)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    text += if parts.is_empty() { "-" } else { "" };
    text += &parts.join(", ");
    text.push('\n');
    if let Some(generation) = generation {
        writeln!(text, "        generation {generation}").expect(STRING);
    }
    for detail in details {
        writeln!(text, "        {}", shown(detail)).expect(STRING);
    }
    text
}

const STRING: &str = "a String takes it";

/// A text of the log as it may go to a terminal. Whole: nobody is served by half of a reason.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for char in text.chars() {
        match char {
            // Escaping is for what a terminal would obey.
            '"' | '\'' => shown.push(char),
            _ => shown.extend(char.escape_debug()),
        }
    }
    shown
}

fn check(arguments: &VerifyArgs) -> Result<(), CommandError> {
    let path = arguments.log.path();
    let name = path.display().to_string();
    let failed = |error: &dyn std::fmt::Display| CommandError::Failed(format!("{name}: {error}"));
    let file = open_to_read(&path).map_err(|error| failed(&error))?;
    let verified = match verify(file, arguments.expect_hash) {
        Ok(verified) => Ok(verified),
        Err(VerifyError::Broken(broken)) => Err(broken),
        Err(error @ VerifyError::Read(_)) => return Err(failed(&error)),
    };
    let text = match (&verified, arguments.json) {
        (Ok(Verified { entries, last, expected }), true) => {
            let last = last.map(|hash| hash.to_string());
            let value = json!({
                "file": name, "ok": true, "entries": entries, "last_hash": last, "expected_entry": expected,
            });
            format!("{value}\n")
        }
        (Err(Broken { line, why }), true) => {
            let value = json!({
                "file": name, "ok": false, "line": line, "kind": why.as_str(), "message": why.to_string(),
            });
            format!("{value}\n")
        }
        (Ok(verified), false) => whole(&name, verified),
        (Err(Broken { line, why }), false) => format!("{name}:{line}: broken ({}): {why}\n", why.as_str()),
    };
    print(&text)?;
    verified.map(drop).map_err(|_| CommandError::Reported)
}

fn whole(name: &str, verified: &Verified) -> String {
    let Verified { entries, last, expected } = verified;
    let mut text = format!("{name}: whole, {entries} entries\n");
    if let Some(last) = last {
        writeln!(text, "last hash {last}").expect(STRING);
    }
    match expected {
        Some(entry) => {
            writeln!(text, "the expected hash is that of entry {entry}: none up to it was changed or cut off")
        }
        None => writeln!(
            text,
            "That lines were cut off the end can't be seen without a hash that was noted before: --expect-hash HEX"
        ),
    }
    .expect(STRING);
    text
}

fn print(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| CommandError::output(&error))
}
