//! Where two subnets' states differ: canister, field, page, byte.

use std::collections::BTreeSet;

use execution::memory::{Memory, PAGE_BYTES, PageVersion};
use execution::state::CanisterState;
use execution::{Principal, SubnetState};

use super::Difference;
use crate::observation::{Field, Observation, Space};

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// Says more exactly where the difference is, by the states after the round in which it is.
pub(super) fn locate(difference: &mut Difference, left: &SubnetState, right: &SubnetState) {
    match (difference.canister, difference.field.page) {
        (Some(canister), Some((space, page))) => {
            let memories = memories(left, right, canister, space);
            // Later messages of the round may have made them equal again: then the checksums have to do.
            if let Some(field) = memories.and_then(|memories| page_difference(space, page, memories)) {
                difference.field = field;
            }
        }
        _ if difference.field.name == Observation::ROOT => {
            if let Some((canister, field)) = first(left, right) {
                difference.what = format!("canister {canister} after the round");
                difference.canister = Some(canister);
                difference.field = field;
            }
        }
        _ => {}
    }
}

fn memories<'a>(
    left: &'a SubnetState,
    right: &'a SubnetState,
    canister: Principal,
    space: Space,
) -> Option<[&'a Memory; 2]> {
    let [left, right] = [left, right].map(|state| memory(state.canister(&canister)?, space));
    Some([left?, right?])
}

fn memory(canister: &CanisterState, space: Space) -> Option<&Memory> {
    let code = canister.code.as_ref()?;
    Some(match space {
        Space::Heap => &code.heap,
        Space::Stable => &code.stable,
    })
}

/// The first canister that differs, and its first field that does.
fn first(left: &SubnetState, right: &SubnetState) -> Option<(Principal, Field)> {
    let ids: BTreeSet<Principal> = left.canisters.keys().chain(right.canisters.keys()).copied().collect();
    ids.into_iter().find_map(|id| {
        let field = match (left.canister(&id), right.canister(&id)) {
            (Some(left), Some(right)) => canister_difference(left, right),
            (left, right) => Field::unless_equal("existence", &left.is_some(), &right.is_some()),
        };
        Some((id, field?))
    })
}

fn canister_difference(left: &CanisterState, right: &CanisterState) -> Option<Field> {
    macro_rules! fields {
        ($($field:ident: $name:literal),* $(,)?) => {
            [$(Field::unless_equal($name, &left.$field, &right.$field)),*].into_iter().flatten().next()
        };
    }
    fields! {
        version: "version",
        balance: "cycles",
        reserved: "reserved cycles",
        settings: "settings",
        status: "status",
        certified_data: "certified data",
        global_timer: "global timer",
        hook: "low-memory hook",
        task_pointer: "next task",
        history: "history",
        log: "log",
        calls: "call contexts",
        inputs: "input queues",
    }
    .or_else(|| {
        let modules = [left, right].map(|canister| canister.module().map(|module| module.hash));
        Field::unless_equal("module", &modules[0], &modules[1])
    })
    .or_else(|| {
        let globals = [left, right].map(|canister| canister.code.as_ref().map(|code| &code.globals));
        Field::unless_equal("globals", &globals[0], &globals[1])
    })
    .or_else(|| {
        Space::ALL.into_iter().find_map(|space| {
            let memories = [memory(left, space)?, memory(right, space)?];
            let sizes = memories.map(Memory::wasm_pages);
            Field::unless_equal(format!("{} size", space.as_str()), &sizes[0], &sizes[1]).or_else(|| {
                let pages: BTreeSet<u64> =
                    memories.iter().flat_map(|memory| memory.pages().map(|(page, _)| page)).collect();
                pages.into_iter().find_map(|page| page_difference(space, page, memories))
            })
        })
    })
}

/// The first byte of a page that differs.
fn page_difference(space: Space, page: u64, memories: [&Memory; 2]) -> Option<Field> {
    let [left, right] = memories.map(|memory| memory.page(page).map_or(&ZEROS, PageVersion::bytes));
    let at =
        if left == right { None } else { left.iter().zip(right).position(|(left, right)| left != right) }?;
    let values = [left[at], right[at]].map(|byte| format!("{byte:#04x}"));
    let name = format!("{} page {page}, byte {at}", space.as_str());
    Some(Field { page: Some((space, page)), ..Field::of(name, values) })
}
