//! Where two states differ first, as a person wants to know it.

use std::collections::BTreeSet;
use std::fmt::Debug;

use execution::memory::{Memory, PAGE_BYTES};
use execution::root::canister_root;
use execution::state::{CanisterState, Code, IngressHistory};
use execution::{Principal, SubnetState};

/// The first canister and field, or field of the subnet, that differs; `None` if none does.
pub(super) fn first(one: &SubnetState, other: &SubnetState) -> Option<String> {
    let ids: BTreeSet<&Principal> = one.canisters.keys().chain(other.canisters.keys()).collect();
    let canister = ids.into_iter().find_map(|id| {
        let found = match (one.canister(id), other.canister(id)) {
            (Some(one), Some(other)) if canister_root(one) == canister_root(other) => None,
            (Some(one), Some(other)) => {
                of_canister(one, other).or_else(|| Some("no field that is known here".into()))
            }
            (one, other) => Some(format!("exists: {} and {}", one.is_some(), other.is_some())),
        };
        found.map(|found| format!("canister {id}: {found}"))
    });
    canister.or_else(|| of_subnet(one, other))
}

/// The value of a field in both, if it differs.
fn field(name: &str, one: &dyn Debug, other: &dyn Debug) -> Option<String> {
    let [one, other] = [one, other].map(|value| format!("{value:?}"));
    (one != other).then(|| format!("{name}: {one} and {other}"))
}

/// Compares the named fields.
macro_rules! fields {
    ($one:expr, $other:expr, $($name:ident),*) => {
        None$(.or_else(|| field(stringify!($name), &$one.$name, &$other.$name)))*
    };
}

fn of_subnet(one: &SubnetState, other: &SubnetState) -> Option<String> {
    let IngressHistory { records, .. } = &one.ingress;
    let of_message = |id| {
        let [one, other] =
            [one, other].map(|state| state.ingress.records.get(id).map(|record| (**record).clone()));
        field(&format!("ingress message {id:?}"), &one, &other)
    };
    fields!(one, other, time, round, seed, draws, canisters_made, charged, management, memory_bytes)
        .or_else(|| records.keys().find_map(of_message))
        .or_else(|| field("answered", &one.ingress.answered, &other.ingress.answered))
}

fn of_canister(one: &CanisterState, other: &CanisterState) -> Option<String> {
    fields!(
        one,
        other,
        balance,
        reserved,
        version,
        status,
        paused,
        settings,
        certified_data,
        global_timer,
        hook,
        task_pointer,
        history,
        log,
        inputs,
        calls,
        created
    )
    .or_else(|| match (&one.code, &other.code) {
        (Some(one), Some(other)) => of_code(one, other),
        (one, other) => field("has code", &one.is_some(), &other.is_some()),
    })
}

fn of_code(one: &Code, other: &Code) -> Option<String> {
    field("module", &one.module.hash, &other.module.hash)
        .or_else(|| fields!(one, other, globals, installed))
        .or_else(|| of_memory("heap", &one.heap, &other.heap))
        .or_else(|| of_memory("stable memory", &one.stable, &other.stable))
}

fn of_memory(name: &str, one: &Memory, other: &Memory) -> Option<String> {
    if one.bytes() != other.bytes() {
        return field(name, &one.bytes(), &other.bytes());
    }
    let pages = one.bytes() / PAGE_BYTES as u64;
    (0..pages).find_map(|page| {
        let [mut a, mut b] = [[0; PAGE_BYTES]; 2];
        one.read(page * PAGE_BYTES as u64, &mut a);
        other.read(page * PAGE_BYTES as u64, &mut b);
        let at = a.iter().zip(&b).position(|(a, b)| a != b)?;
        Some(format!("{name}, page {page}, byte {at}: {} and {}", a[at], b[at]))
    })
}
