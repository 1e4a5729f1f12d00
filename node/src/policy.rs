//! `bulkhead config check` and `bulkhead explain`: policy files, without a node.

use std::io::{self, Write};
use std::path::Path;

use rollout::{Diagnostic, LoadError, Policy};
use serde_json::{Value, json};

use crate::cli::CommandError;

/// Checks a policy file. What is wrong goes to standard error, or with `as_json` to standard output.
///
/// # Errors
/// The file can't be read or is no valid policy.
pub fn check(path: &Path, as_json: bool) -> Result<(), CommandError> {
    let name = path.display().to_string();
    let loaded = Policy::load(path).map(drop);
    if as_json {
        let errors: Vec<Value> = match &loaded {
            Ok(()) => Vec::new(),
            Err(LoadError::Invalid(diagnostics)) => diagnostics.iter().map(diagnostic_json).collect(),
            Err(error) => vec![json!({ "message": error.to_string() })],
        };
        print(&json!({ "file": name, "ok": loaded.is_ok(), "errors": errors }).to_string())?;
        return loaded.map_err(|_| CommandError::Reported);
    }
    loaded.map_err(refused)?;
    print(&format!("{name}: ok"))
}

/// Says which mode is in effect on `node` of `subnet`, and why.
///
/// # Errors
/// The file can't be read or is no valid policy.
pub fn explain(path: &Path, subnet: &str, node: &str, as_json: bool) -> Result<(), CommandError> {
    let resolution = Policy::load(path).map_err(refused)?.resolve(subnet, node);
    if as_json { print(&resolution.to_json().to_string()) } else { print(&resolution.to_string()) }
}

fn refused(error: LoadError) -> CommandError {
    match error {
        LoadError::Invalid(_) => {
            // There is nobody to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "{error}. Nothing is changed.");
            CommandError::Reported
        }
        error => CommandError::Failed(error.to_string()),
    }
}

fn diagnostic_json(error: &Diagnostic) -> Value {
    json!({
        "line": error.position.line,
        "column": error.position.column,
        "message": error.message,
        "expected": error.expected,
        "suggestion": error.suggestion,
        "note": error.note,
    })
}

fn print(text: &str) -> Result<(), CommandError> {
    writeln!(io::stdout(), "{text}").map_err(|error| CommandError::output(&error))
}
