//! A round trip without a socket: two processes take turns by a word in shared memory, asleep in between.

use sandbox_os::tsc;

use crate::kernel::{MemoryFile, Turns};
use crate::peer::{Peer, Role};

const CALLER: u32 = 0;
const CALLEE: u32 = 1;

/// The caller's side.
pub(crate) struct Mailbox {
    turns: Turns,
    /// Open until the peer has opened it by its number.
    _file: MemoryFile,
    _peer: Peer,
}

impl Mailbox {
    /// Starts the other side where the calling thread may run.
    pub(crate) fn start() -> Result<Self, String> {
        let file = MemoryFile::sparse(1)?;
        let turns = Turns::new(&file)?;
        let peer = Peer::start(Role::Mailbox(file.number()))?;
        Ok(Self { turns, _file: file, _peer: peer })
    }

    /// One round trip.
    pub(crate) fn round_trip(&self) -> Result<(), String> {
        tsc::open();
        self.turns.pass(CALLEE)?;
        self.turns.wait_for(CALLER)
    }
}

/// The other side, with the parent's file of this number.
pub(crate) fn serve(number: usize) -> Result<(), String> {
    let turns = Turns::new(&MemoryFile::of_parent(number, 1)?)?;
    loop {
        turns.wait_for(CALLEE)?;
        turns.pass(CALLER)?;
    }
}
