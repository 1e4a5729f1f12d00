//! Modes and floors: two closed word lists.

use std::fmt;

/// How executions run. Ordered by what a canister is kept away from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// In the node's own address space.
    InProcess,
    /// In-process, committed; and again in a sandbox, compared. Guest code still runs in the node.
    Shadow,
    /// In a process of the canister's own.
    Sandboxed,
}

impl Mode {
    /// All modes, as an error message lists them.
    pub const ALL: [Self; 3] = [Self::InProcess, Self::Sandboxed, Self::Shadow];

    /// The word in the policy file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Shadow => "shadow",
            Self::Sandboxed => "sandboxed",
        }
    }

    /// The mode that `word` names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The weakest mode that may be in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Floor {
    /// Every mode.
    None,
    /// Only `sandboxed`.
    Sandboxed,
}

impl Floor {
    /// All floors.
    pub const ALL: [Self; 2] = [Self::None, Self::Sandboxed];

    /// The word in the policy file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sandboxed => "sandboxed",
        }
    }

    /// The floor that `word` names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|floor| floor.as_str() == word)
    }

    /// The weakest mode that it allows.
    #[must_use]
    pub fn weakest_mode(self) -> Mode {
        match self {
            Self::None => Mode::InProcess,
            Self::Sandboxed => Mode::Sandboxed,
        }
    }

    /// Whether `mode` stays at or above this floor.
    #[must_use]
    pub fn allows(self, mode: Mode) -> bool {
        mode >= self.weakest_mode()
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
