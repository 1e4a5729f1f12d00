//! Attacks on the node: what a worker says, shares and leaves unsaid.

mod arena;
mod compile;
mod gullible;
mod layers;
mod replies;
mod world;

use super::Attack;

pub(super) fn attacks() -> Vec<Attack> {
    [arena::attacks(), replies::attacks(), compile::attacks(), layers::attacks()]
        .into_iter()
        .flatten()
        .collect()
}

/// What this program does as a stand-in for a node that has no defence. Whether it is one of these.
pub(super) fn stand_in(role: &str) -> bool {
    if role == "maps" {
        arena::maps();
    }
    role == "maps"
}
