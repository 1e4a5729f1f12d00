//! Where two subnets' states differ: canister, field, page, byte.

use std::collections::BTreeSet;

use execution::memory::{Memory, PAGE_BYTES, PageVersion};
use execution::state::{CanisterSnapshot, CanisterSnapshots, CanisterState, ChunkStore, Code};
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
    // Destructured so that a new field can't be forgotten.
    let CanisterState {
        id: _,
        settings,
        balance,
        reserved,
        version,
        status,
        certified_data,
        global_timer,
        hook,
        task_pointer,
        history,
        log,
        chunks,
        snapshots,
        install_debit,
        heap_delta,
        inputs,
        paused,
        calls,
        code,
        created,
    } = left;
    macro_rules! fields {
        ($($field:ident: $name:literal),* $(,)?) => {
            [$(Field::unless_equal($name, $field, &right.$field)),*].into_iter().flatten().next()
        };
    }
    fields! {
        version: "version",
        created: "time of creation",
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
        paused: "message in hand",
        install_debit: "installs ahead of the rate",
        heap_delta: "bytes written ahead of the rate",
    }
    .or_else(|| chunks_difference("chunk store", chunks, &right.chunks))
    .or_else(|| match (code, &right.code) {
        (Some(left), Some(right)) => code_difference("", left, right),
        (left, right) => {
            let modules = [left, right].map(|code| code.as_ref().map(|code| code.module.hash));
            Field::unless_equal("module", &modules[0], &modules[1])
        }
    })
    .or_else(|| snapshots_difference(snapshots, &right.snapshots))
}

fn chunks_difference(name: impl Into<String>, left: &ChunkStore, right: &ChunkStore) -> Option<Field> {
    // A chunk is its hash: the first that only one has.
    let only = |of: &ChunkStore, other: &ChunkStore| {
        of.chunks.keys().find(|hash| !other.chunks.contains_key(*hash)).map(hex::encode)
    };
    Field::unless_equal(name, &only(left, right), &only(right, left))
}

fn snapshots_difference(left: &CanisterSnapshots, right: &CanisterSnapshots) -> Option<Field> {
    let CanisterSnapshots { next, taken } = left;
    let numbers = [taken, &right.taken].map(|taken| taken.keys().copied().collect::<Vec<_>>());
    Field::unless_equal("number of the next snapshot", next, &right.next)
        .or_else(|| Field::unless_equal("snapshots", &numbers[0], &numbers[1]))
        .or_else(|| {
            let mut both = taken.values().zip(right.taken.values()).zip(&numbers[0]);
            both.find_map(|((left, right), number)| snapshot_difference(*number, left, right))
        })
}

fn snapshot_difference(number: u64, left: &CanisterSnapshot, right: &CanisterSnapshot) -> Option<Field> {
    let CanisterSnapshot { taken_at, version, code, certified_data, chunks } = left;
    let of = format!("snapshot {number}: ");
    Field::unless_equal(format!("{of}time"), taken_at, &right.taken_at)
        .or_else(|| Field::unless_equal(format!("{of}version"), version, &right.version))
        .or_else(|| Field::unless_equal(format!("{of}certified data"), certified_data, &right.certified_data))
        .or_else(|| chunks_difference(format!("{of}chunk store"), chunks, &right.chunks))
        .or_else(|| code_difference(&of, code, &right.code))
}

/// The first difference in code and memory; `of` goes before its name.
fn code_difference(of: &str, left: &Code, right: &Code) -> Option<Field> {
    // Where pages lie is physical.
    let Code { module, arena: _, heap, stable, globals, installed } = left;
    Field::unless_equal("module", &module.hash, &right.module.hash)
        .or_else(|| Field::unless_equal("time of install", installed, &right.installed))
        .or_else(|| Field::unless_equal("globals", globals, &right.globals))
        .or_else(|| memory_difference(Space::Heap, [heap, &right.heap]))
        .or_else(|| memory_difference(Space::Stable, [stable, &right.stable]))
        .map(|field| Field { name: format!("{of}{}", field.name), ..field })
}

fn memory_difference(space: Space, memories: [&Memory; 2]) -> Option<Field> {
    let sizes = memories.map(Memory::wasm_pages);
    Field::unless_equal(format!("{} size", space.as_str()), &sizes[0], &sizes[1]).or_else(|| {
        let pages: BTreeSet<u64> =
            memories.iter().flat_map(|memory| memory.pages().map(|(page, _)| page)).collect();
        pages.into_iter().find_map(|page| page_difference(space, page, memories))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use execution::memory::{Arena, Blob};
    use execution::module::Interface;
    use execution::state::{Input, PausedMessage, Start, Task};
    use execution::{Module, ModuleHash};

    use super::*;

    /// Code with one page of heap and this byte in it.
    fn code(byte: u8) -> Code {
        let arena = Arena::new(1 << 20).unwrap();
        let heap = Memory::default().with(1, [(3, arena.store(&[byte; PAGE_BYTES]).unwrap())]);
        let (hash, interface, code) = (ModuleHash([0; 32]), Interface::default(), Blob::new(&[]).unwrap());
        let module = Arc::new(Module { hash, wasm_bytes: 0, interface, code });
        Code { module, arena, heap, stable: Memory::default(), globals: Arc::from([]), installed: 0 }
    }

    fn canister() -> CanisterState {
        let chunks = ChunkStore::default();
        let snapshot =
            CanisterSnapshot { taken_at: 0, version: 0, code: code(1), certified_data: vec![], chunks };
        let mut canister = CanisterState::new(Principal::anonymous(), vec![], 0, 0);
        canister.code = Some(code(1));
        canister.snapshots.taken.insert(0, Arc::new(snapshot));
        canister
    }

    fn snapshot(canister: &mut CanisterState) -> &mut CanisterSnapshot {
        Arc::make_mut(&mut canister.snapshots.taken[&0])
    }

    #[test]
    fn each_part_of_a_canister_is_compared_but_for_where_it_lies() {
        type Change = fn(&mut CanisterState);
        assert_eq!(canister_difference(&canister(), &canister()), None);
        let changes: [(&str, Change); 11] = [
            ("time of creation", |canister| canister.created = 1),
            ("message in hand", |canister| {
                let start = Start {
                    time: 0,
                    balance: 0,
                    waiting_bytes: 0,
                    memory_available: 0,
                    callbacks_available: 0,
                    message_bytes_available: 0,
                };
                canister.paused =
                    Some(PausedMessage { input: Input::Task(Task::Heartbeat), slices: 1, start });
            }),
            ("installs ahead of the rate", |canister| canister.install_debit.add(1, 0, 1)),
            ("bytes written ahead of the rate", |canister| canister.heap_delta.add(1, 0, 1)),
            ("chunk store", |canister| drop(canister.chunks.chunks.insert([7; 32], Arc::from([])))),
            ("time of install", |canister| canister.code.as_mut().unwrap().installed = 1),
            ("number of the next snapshot", |canister| canister.snapshots.next = 1),
            ("snapshots", |canister| drop(canister.snapshots.taken.remove(&0))),
            ("snapshot 0: version", |canister| snapshot(canister).version = 1),
            ("snapshot 0: chunk store", |canister| {
                snapshot(canister).chunks.chunks.insert([7; 32], Arc::from([]));
            }),
            ("snapshot 0: heap page 3, byte 0", |canister| snapshot(canister).code = code(2)),
        ];
        for (name, change) in changes {
            let mut changed = canister();
            change(&mut changed);
            let field = canister_difference(&canister(), &changed);
            assert_eq!(field.map(|field| field.name).as_deref(), Some(name));
        }
    }
}
