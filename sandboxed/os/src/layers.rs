//! The layers that a launch puts around a process, as a set.

use std::fmt;
use std::ops::BitOr;

/// A set of layers of confinement. The product launches with [`Layers::ALL`]; where the machine lacks one, the
/// launch goes without it and says so, or is refused (see [`crate::verify`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layers(u16);

impl Layers {
    /// No layer.
    pub const NONE: Self = Self(0);
    /// A user of its own: an id of its own as root, a user namespace as an ordinary user.
    pub const USER: Self = Self(1);
    /// A mount namespace with an empty read-only root.
    pub const MOUNT: Self = Self(1 << 1);
    /// A pid namespace.
    pub const PID: Self = Self(1 << 2);
    /// A network namespace without interfaces.
    pub const NET: Self = Self(1 << 3);
    /// An ipc namespace.
    pub const IPC: Self = Self(1 << 4);
    /// A uts namespace.
    pub const UTS: Self = Self(1 << 5);
    /// A cgroup namespace.
    pub const CGROUP_NAMESPACE: Self = Self(1 << 6);
    /// Landlock without rules.
    pub const LANDLOCK: Self = Self(1 << 7);
    /// No capabilities, and securebits that lock them away.
    pub const CAPABILITIES: Self = Self(1 << 8);
    /// Resource limits.
    pub const LIMITS: Self = Self(1 << 9);
    /// no_new_privs.
    pub const NO_NEW_PRIVS: Self = Self(1 << 10);
    /// The SETUP filter, in force across exec. Brings no_new_privs with it.
    pub const SETUP: Self = Self(1 << 11);
    /// A control group of its own, with limits of memory and processes.
    pub const CGROUP: Self = Self(1 << 12);
    /// An empty root by chroot(2), where there is no [`Layers::MOUNT`].
    pub const CHROOT: Self = Self(1 << 13);
    /// All that a launch asks for; [`Layers::CHROOT`] only ever takes another's place.
    pub const ALL: Self = Self((1 << 13) - 1);

    /// Whether all of `other` are in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that aren't in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// As a number, one bit a layer.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// From [`Layers::bits`]; bits that stand for nothing are left out.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & (Self::ALL.0 | Self::CHROOT.0))
    }
}

impl BitOr for Layers {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layers({:#x})", self.0)
    }
}
