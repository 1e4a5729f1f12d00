//! Runs scripts through `bulkhead drun`, as a user would: nothing here reaches into the node.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use candid::utils::{ArgumentDecoder, ArgumentEncoder};
use candid::{CandidType, Principal};
use serde::Deserialize;
use tempfile::TempDir;

/// The modes that a script can run in.
pub(crate) const MODES: [&str; 3] = ["in-process", "shadow", "sandboxed"];

/// The canister that drun makes before the script starts.
pub(crate) const FIRST: u64 = 0;

/// The path of a canister module of this repository.
pub(crate) fn module(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("canisters").join(name);
    assert!(path.is_file(), "there is no module {}", path.display());
    path
}

/// The id of the `index`th canister of a script.
pub(crate) fn id(index: u64) -> Principal {
    let mut bytes = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    bytes[..8].copy_from_slice(&index.to_be_bytes());
    Principal::from_slice(&bytes)
}

/// The number of a command in its script: where its answer is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step(usize);

/// A script being written.
pub(crate) struct Script {
    text: String,
    files: Vec<(String, Vec<u8>)>,
    canisters: u64,
    answers: usize,
}

impl Script {
    pub(crate) fn new() -> Self {
        // The first answer is that of the canister which exists from the start.
        Self { text: String::new(), files: Vec::new(), canisters: 1, answers: 1 }
    }

    /// Makes one more canister; its number.
    pub(crate) fn create(&mut self) -> u64 {
        self.line("create");
        self.canisters += 1;
        self.canisters - 1
    }

    pub(crate) fn install(&mut self, canister: u64, name: &str, args: impl ArgumentEncoder) -> Step {
        self.code("install", canister, name, args)
    }

    pub(crate) fn reinstall(&mut self, canister: u64, name: &str, args: impl ArgumentEncoder) -> Step {
        self.code("reinstall", canister, name, args)
    }

    pub(crate) fn upgrade(&mut self, canister: u64, name: &str, args: impl ArgumentEncoder) -> Step {
        self.code("upgrade", canister, name, args)
    }

    pub(crate) fn update(&mut self, canister: u64, method: &str, args: impl ArgumentEncoder) -> Step {
        self.call("ingress", id(canister), method, args)
    }

    pub(crate) fn query(&mut self, canister: u64, method: &str, args: impl ArgumentEncoder) -> Step {
        self.call("query", id(canister), method, args)
    }

    /// A module that lies beside the script, for `install` and its like by this name.
    pub(crate) fn file(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.files.push((name.to_owned(), bytes.into()));
    }

    fn code(&mut self, verb: &str, canister: u64, name: &str, args: impl ArgumentEncoder) -> Step {
        let beside = self.files.iter().any(|(file, _)| file == name);
        let path = if beside { PathBuf::from(name) } else { module(name) };
        self.line(&format!("{verb} {} {} {}", id(canister), path.display(), hex_of(args)))
    }

    fn call(&mut self, verb: &str, to: Principal, method: &str, args: impl ArgumentEncoder) -> Step {
        self.line(&format!("{verb} {to} {method} {}", hex_of(args)))
    }

    /// A line as it stands.
    pub(crate) fn line(&mut self, line: &str) -> Step {
        writeln!(self.text, "{line}").expect("a string takes lines");
        self.answers += 1;
        Step(self.answers - 1)
    }

    /// Runs the script in one mode.
    pub(crate) fn run(&self, mode: &str) -> Run {
        self.start(mode).finish()
    }

    /// Starts the script in one mode.
    pub(crate) fn start(&self, mode: &str) -> Running {
        let folder = tempfile::tempdir().expect("a folder for the script");
        let script = folder.path().join("script.drun");
        let report = folder.path().join("report.jsonl");
        fs::write(&script, &self.text).expect("the script is written");
        for (name, bytes) in &self.files {
            fs::write(folder.path().join(name), bytes).expect("a file beside the script");
        }
        let errors = fs::File::create(folder.path().join("stderr")).expect("a file for the errors");
        let mut child = Command::new(env!("CARGO_BIN_EXE_bulkhead-under-test"))
            .args(["drun", "--mode", mode, "--report"])
            .args([&report, &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("bulkhead starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (answers, mode) = (self.answers, mode.to_owned());
        Running { child, output, read: String::new(), answers, mode, folder }
    }

    /// Runs the script in every mode, asserts that the modes are equal in everything but time, and returns
    /// one of the runs.
    pub(crate) fn run_in_all_modes(&self) -> Run {
        let [reference, shadow, sandboxed] = MODES.map(|mode| self.run(mode));
        for other in [&shadow, &sandboxed] {
            reference.assert_same(other);
        }
        reference
    }
}

/// A script in progress. Dropping it kills the process.
pub(crate) struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    read: String,
    answers: usize,
    mode: String,
    folder: TempDir,
}

impl Running {
    /// The process that runs the script.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits until this command has been answered.
    pub(crate) fn wait_for(&mut self, step: Step) {
        while self.read.lines().filter_map(answer).count() <= step.0 {
            let bytes = self.output.read_line(&mut self.read).expect("drun prints text");
            assert!(bytes > 0, "drun ended before command {}:\n{}\n{}", step.0, self.read, self.errors());
        }
    }

    /// Waits for the end of a script that can't be run: what drun says on standard error.
    pub(crate) fn finish_refused(mut self) -> String {
        self.output.read_to_string(&mut self.read).expect("drun prints text");
        let status = self.child.wait().expect("our own child");
        let errors = self.errors();
        assert_eq!(status.code(), Some(1), "{errors}\n{}", self.read);
        assert!(!errors.contains("panicked") && !errors.contains("stack backtrace"), "{errors}");
        errors
    }

    /// Kills the process at once.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Waits for the end of the script.
    pub(crate) fn finish(mut self) -> Run {
        self.output.read_to_string(&mut self.read).expect("drun prints text");
        let status = self.child.wait().expect("our own child");
        let (mode, errors) = (&self.mode, self.errors());
        assert!(status.success(), "drun --mode {mode}: {status}\n{errors}\n{}", self.read);
        assert!(!errors.contains("panicked"), "drun --mode {mode}: {errors}");
        let report = fs::read_to_string(self.folder.path().join("report.jsonl")).expect("a report");
        let messages: Vec<Message> =
            report.lines().map(|line| serde_json::from_str(line).expect("a message a line")).collect();
        for message in messages.iter().filter(|message| message.instructions > 0) {
            assert_eq!(message.mode.as_deref(), Some(mode.as_str()), "{message:?}");
        }
        if mode == "shadow" {
            assert_no_difference(&errors);
        }
        let run = Run::parse(&self.read, messages);
        assert_eq!(run.answers.len(), self.answers, "an answer a command: {}\n{errors}", self.read);
        run
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).expect("drun's errors")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended; either way it is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command of a script was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Reply(Vec<u8>),
    /// The code (`IC0503`), and the text with its advice.
    Error(String, String),
}

/// A line of the report.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) canister: String,
    pub(crate) kind: String,
    pub(crate) method: Option<String>,
    /// Nothing for a message that failed before it ran.
    pub(crate) mode: Option<String>,
    pub(crate) outcome: String,
    pub(crate) code: Option<String>,
    pub(crate) instructions: u64,
    pub(crate) dirty_heap_pages: u64,
    pub(crate) dirty_stable_pages: u64,
    pub(crate) state_root: String,
}

impl Message {
    /// All that no mode may change.
    fn result(&self) -> impl PartialEq + std::fmt::Debug + '_ {
        (
            (&self.canister, &self.kind, &self.method, &self.outcome, &self.code),
            (self.instructions, self.dirty_heap_pages, self.dirty_stable_pages, &self.state_root),
        )
    }
}

/// A script that ran to its end.
pub(crate) struct Run {
    pub(crate) answers: Vec<Answer>,
    /// What the canisters printed, in order.
    pub(crate) prints: Vec<String>,
    pub(crate) messages: Vec<Message>,
    output: String,
}

impl Run {
    fn parse(output: &str, messages: Vec<Message>) -> Self {
        let mut answers = Vec::new();
        let mut prints: Vec<String> = Vec::new();
        let mut in_print = false;
        for line in output.lines() {
            if let Some(text) = line.strip_prefix("debug.print: ") {
                prints.push(text.to_owned());
                in_print = true;
            } else if let Some(answer) = answer(line) {
                answers.push(answer);
                in_print = false;
            } else if in_print {
                let last = prints.last_mut().expect("a print came before");
                last.push('\n');
                last.push_str(line);
            } else if let Some(Answer::Error(_, text)) = answers.last_mut() {
                text.push('\n');
                text.push_str(line);
            } else {
                panic!("no line of drun's output looks like this: {line}");
            }
        }
        Self { answers, prints, messages, output: output.to_owned() }
    }

    /// The reply's bytes.
    #[track_caller]
    pub(crate) fn bytes(&self, step: Step) -> &[u8] {
        match &self.answers[step.0] {
            Answer::Reply(bytes) => bytes,
            Answer::Error(code, text) => panic!("command {} failed: {code}: {text}", step.0),
        }
    }

    /// The reply's one value.
    #[track_caller]
    pub(crate) fn value<T: for<'a> Deserialize<'a> + CandidType>(&self, step: Step) -> T {
        let bytes = self.bytes(step);
        candid::decode_one(bytes)
            .unwrap_or_else(|error| panic!("command {}: {error}: {}", step.0, hex::encode(bytes)))
    }

    /// The reply's values.
    #[track_caller]
    pub(crate) fn values<T: for<'a> ArgumentDecoder<'a>>(&self, step: Step) -> T {
        let bytes = self.bytes(step);
        candid::decode_args(bytes)
            .unwrap_or_else(|error| panic!("command {}: {error}: {}", step.0, hex::encode(bytes)))
    }

    /// Asserts a failure with this code whose text holds `part`.
    #[track_caller]
    pub(crate) fn assert_error(&self, step: Step, code: &str, part: &str) {
        match &self.answers[step.0] {
            Answer::Error(found, text) => {
                assert_eq!(found, code, "command {}: {text}", step.0);
                assert!(text.contains(part), "command {}: no {part:?} in: {text}", step.0);
            }
            Answer::Reply(bytes) => {
                panic!("command {} was answered {}, not {code}", step.0, hex::encode(bytes))
            }
        }
    }

    /// Asserts that the other run had the same answers, prints, instruction counts and state roots.
    #[track_caller]
    pub(crate) fn assert_same(&self, other: &Self) {
        for (index, (ours, theirs)) in self.messages.iter().zip(&other.messages).enumerate() {
            assert!(ours.result() == theirs.result(), "message {index} differs:\n{:?}\n{:?}", ours, theirs);
        }
        assert_eq!(self.messages.len(), other.messages.len());
        assert_eq!(self.output, other.output);
    }
}

/// What drun says of a shadow run, at its end.
#[track_caller]
fn assert_no_difference(errors: &str) {
    let summary = errors.lines().find_map(|line| line.strip_prefix("shadow: "));
    let summary = summary.unwrap_or_else(|| panic!("no summary of the comparisons: {errors}"));
    let count = |word: &str| -> u64 {
        let counts = summary.split(", ").find_map(|part| part.strip_suffix(word));
        counts.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{word}: {summary}"))
    };
    assert!(count("executions") > 0, "{summary}");
    assert_eq!(count("equal"), count("executions"), "{errors}");
}

fn answer(line: &str) -> Option<Answer> {
    let rest = line.strip_prefix("ingress Completed: ").or_else(|| line.strip_prefix("Ok: "));
    if let Some(hex) = rest.and_then(|rest| rest.strip_prefix("Reply: 0x")) {
        return Some(Answer::Reply(hex::decode(hex).expect("a reply is in hexadecimal")));
    }
    let error = line.strip_prefix("ingress Err: ").or_else(|| line.strip_prefix("Err: "))?;
    let (code, text) = error.split_once(": ").expect("an error starts with its code");
    Some(Answer::Error(code.to_owned(), text.to_owned()))
}

fn hex_of(args: impl ArgumentEncoder) -> String {
    format!("0x{}", hex::encode(candid::encode_args(args).expect("the arguments encode")))
}
