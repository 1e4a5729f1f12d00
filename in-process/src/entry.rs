//! From an entry point to the function that runs.

use execution::{Callback, EntryPoint, ErrorCode, Trap};
use wasmtime::{Func, Val, ValType};

use crate::instance::Instance;
use crate::trap::{self, Stop};

/// Calls the function of an entry point. An absent one ends the run like a trap.
pub(crate) async fn call(instance: &mut Instance, entry: &EntryPoint) -> Result<(), wasmtime::Error> {
    match entry {
        EntryPoint::Start => export(instance, "canister_start").await,
        EntryPoint::Init { .. } => export(instance, "canister_init").await,
        EntryPoint::PreUpgrade => export(instance, "canister_pre_upgrade").await,
        EntryPoint::PostUpgrade { .. } => export(instance, "canister_post_upgrade").await,
        EntryPoint::InspectMessage { .. } => export(instance, "canister_inspect_message").await,
        EntryPoint::Heartbeat => export(instance, "canister_heartbeat").await,
        EntryPoint::GlobalTimer => export(instance, "canister_global_timer").await,
        EntryPoint::LowWasmMemory => export(instance, "canister_on_low_wasm_memory").await,
        EntryPoint::Update { method, .. } => export(instance, &format!("canister_update {method}")).await,
        EntryPoint::ReplicatedQuery { method, .. }
        | EntryPoint::Query { method, .. }
        | EntryPoint::Transform { method, .. } => export(instance, &format!("canister_query {method}")).await,
        EntryPoint::CompositeQuery { method, .. } => {
            export(instance, &format!("canister_composite_query {method}")).await
        }
        EntryPoint::Reply { callback: function, .. }
        | EntryPoint::Reject { callback: function, .. }
        | EntryPoint::Cleanup { callback: function, .. } => callback(instance, *function).await,
    }
}

async fn export(instance: &mut Instance, name: &str) -> Result<(), wasmtime::Error> {
    let Some(function) = instance.raw.get_func(&mut instance.store, name) else {
        let text = format!("Canister has no method '{name}'");
        return Err(Stop::Guest(Trap { code: ErrorCode::METHOD_NOT_FOUND, text }).into());
    };
    function.call_async(&mut instance.store, &[], &mut []).await
}

/// Callbacks are resolved when the response arrives: any entry of table 0 with the right type.
async fn callback(instance: &mut Instance, callback: Callback) -> Result<(), wasmtime::Error> {
    let function = match find(instance, callback.function) {
        Ok(function) => function,
        Err(trap) => return Err(Stop::Guest(trap).into()),
    };
    let environment = if instance.store.data().shape.memory64 {
        Val::I64(callback.environment.cast_signed())
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "a 32-bit canister passed 32 bits")]
        Val::I32((callback.environment as u32).cast_signed())
    };
    function.call_async(&mut instance.store, &[environment], &mut []).await
}

fn find(instance: &mut Instance, index: u64) -> Result<Func, Trap> {
    let Some(table) = instance.store.data().handles().table else { return Err(trap::no_function(index)) };
    let Some(element) = table.get(&mut instance.store, index) else { return Err(trap::no_function(index)) };
    let wide = instance.store.data().shape.memory64;
    let expected = |parameter: ValType| if wide { parameter.is_i64() } else { parameter.is_i32() };
    let function = element.as_func().flatten().copied().filter(|function| {
        let ty = function.ty(&instance.store);
        ty.params().len() == 1 && ty.results().len() == 0 && ty.params().all(expected)
    });
    function.ok_or_else(|| trap::contract("function invocation does not match its signature"))
}
