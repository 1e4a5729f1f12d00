//! Limits on functions and their bodies (`canister-execution.md` sections 1.2, 1.4).

use execution::InvalidModule;
use wasmparser::{FunctionBody, Operator};

use super::parsed::Parsed;
use super::{cost, invalid};

const FUNCTIONS_MAX: usize = 50_000;
const INSTRUCTIONS_MAX: u64 = 1_000_000;
const COMPLEXITY_MAX: u64 = 1_000_000;

/// Checks the number of defined functions.
pub(super) fn count(parsed: &Parsed<'_>) -> Result<(), InvalidModule> {
    let count = parsed.functions.len();
    if count > FUNCTIONS_MAX {
        return Err(invalid(format!("function section: {count} functions, the limit is {FUNCTIONS_MAX}")));
    }
    Ok(())
}

/// Checks all bodies; gives whether any drops a data segment.
pub(super) fn bodies(parsed: &Parsed<'_>) -> Result<bool, InvalidModule> {
    let mut drops_data = false;
    for (index, body) in (u64::from(parsed.imported_functions())..).zip(&parsed.bodies) {
        drops_data |= check_body(index, body)?;
    }
    Ok(drops_data)
}

fn check_body(index: u64, body: &FunctionBody<'_>) -> Result<bool, InvalidModule> {
    let malformed = |error: wasmparser::Error| invalid(format!("code section: function {index}: {error}"));
    let mut drops_data = false;
    let mut instructions = 0;
    let mut complexity = 0;
    let mut reader = body.get_operators_reader().map_err(malformed)?;
    while !reader.eof() {
        let operator = reader.read().map_err(malformed)?;
        if let Some(name) = refused(&operator) {
            return Err(invalid(format!("code section: function {index} uses {name}, which changes tables")));
        }
        drops_data |= matches!(operator, Operator::DataDrop { .. });
        instructions += 1;
        complexity += cost::complexity(&operator);
    }
    if instructions > INSTRUCTIONS_MAX {
        return Err(invalid(format!(
            "code section: function {index} has {instructions} instructions, the limit is {INSTRUCTIONS_MAX}"
        )));
    }
    if complexity > COMPLEXITY_MAX {
        return Err(invalid(format!(
            "code section: function {index} has complexity {complexity}, the limit is {COMPLEXITY_MAX}"
        )));
    }
    Ok(drops_data)
}

/// Instructions that change tables: tables are the same in each message.
fn refused(operator: &Operator<'_>) -> Option<&'static str> {
    match operator {
        Operator::TableSet { .. } => Some("table.set"),
        Operator::TableGrow { .. } => Some("table.grow"),
        Operator::TableFill { .. } => Some("table.fill"),
        Operator::TableCopy { .. } => Some("table.copy"),
        Operator::TableInit { .. } => Some("table.init"),
        _ => None,
    }
}
