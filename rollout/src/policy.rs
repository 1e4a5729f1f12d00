//! The policy: which mode applies where.

mod bounds;
mod floors;
mod parse;
mod resolution;
mod units;

use std::collections::HashMap;
use std::sync::Arc;

pub use bounds::Bounds;
pub use resolution::{Layer, LayerSaid, Location, Reason, Resolution, Standing};

use crate::{Diagnostic, Floor, Mode, Position};

/// Largest policy file, bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most `[subnets.ID]` and `[nodes.ID]` tables together.
pub const ENTRIES_MAX: usize = 10_000;

/// A valid policy: layers default < subnets < nodes. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    file: Arc<str>,
    default: Table,
    subnets: HashMap<String, Table>,
    nodes: HashMap<String, Table>,
    bounds: Bounds,
}

/// What one table of the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Table {
    mode: Option<Said<Mode>>,
    floor: Option<Said<Floor>>,
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said<T> {
    value: T,
    at: Position,
    /// Byte offsets of the value: start, end.
    bytes: (usize, usize),
}

impl<T> Said<T> {
    fn span(&self) -> std::ops::Range<usize> {
        self.bytes.0..self.bytes.1
    }
}

impl Policy {
    /// Reads a policy from `text`; `file` is how messages name it.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        parse::parse(file, text)
    }

    /// As [`Policy::parse`], for bytes that may not be text.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        parse::parse_bytes(file, bytes)
    }

    /// The policy of a node without a file: `mode` everywhere, no floor.
    #[must_use]
    pub fn fixed(mode: Mode) -> Self {
        let said = Said { value: mode, at: Position { line: 1, column: 1 }, bytes: (0, 0) };
        Self {
            file: "(fixed)".into(),
            default: Table { mode: Some(said), floor: None },
            subnets: HashMap::new(),
            nodes: HashMap::new(),
            bounds: Bounds::default(),
        }
    }

    /// The file it was read from, as named to [`Policy::parse`].
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Bounds of the node that reads it. They are in force from its start on, so a change of them takes
    /// another start; see [`crate::InForce::restart_for`].
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// What applies on `node` of `subnet`, and why. Pure. Done once per reload, not per message.
    #[must_use]
    pub fn resolve(&self, subnet: &str, node: &str) -> Resolution {
        resolution::resolve(self, subnet, node)
    }
}
