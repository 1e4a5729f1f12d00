//! Calls other canisters: bounded and unbounded waits, rejects, traps after an await, cycles, the management canister.

use candid::Principal;
use ic_cdk::api;
use ic_cdk::call::Call;
use std::cell::Cell;
use std::future::IntoFuture;

thread_local! {
    static VISITS: Cell<u64> = const { Cell::new(0) };
}

fn visit(weight: u64) {
    VISITS.set(VISITS.get() + weight);
}

/// Bounces between the two canisters `hops` times with bounded waits; both count each visit.
#[ic_cdk::update]
async fn ping(peer: Principal, hops: u64) -> u64 {
    visit(1);
    if hops == 0 {
        return 0;
    }
    let reply = Call::bounded_wait(peer, "ping").with_args(&(api::canister_self(), hops - 1)).await;
    let rest: u64 = reply.expect("the peer answers").candid().expect("a number");
    visit(1000);
    rest + 1
}

/// The same with unbounded waits.
#[ic_cdk::update]
async fn ping_unbounded(peer: Principal, hops: u64) -> u64 {
    visit(1);
    if hops == 0 {
        return 0;
    }
    let call = Call::unbounded_wait(peer, "ping_unbounded").with_args(&(api::canister_self(), hops - 1));
    let rest: u64 = call.await.expect("the peer answers").candid().expect("a number");
    rest + 1
}

/// Traps after an await: what was written before the call stays, what came after goes.
#[ic_cdk::update]
async fn trap_after_await(peer: Principal) {
    visit(100);
    let _ = Call::unbounded_wait(peer, "ping").with_args(&(peer, 0_u64)).await;
    visit(10_000);
    ic_cdk::trap("trap after await")
}

/// Panics before any call: nothing stays.
#[ic_cdk::update]
fn panic_now() {
    visit(1);
    panic!("panic before any call");
}

async fn describe(call: Call<'_, '_>) -> String {
    match call.await {
        Ok(reply) => format!("ok {}", reply.into_bytes().len()),
        Err(error) => format!("{error}"),
    }
}

#[ic_cdk::update]
async fn call_missing(peer: Principal) -> String {
    describe(Call::unbounded_wait(peer, "no_such_method")).await
}

#[ic_cdk::update]
async fn call_panicking(peer: Principal) -> String {
    describe(Call::bounded_wait(peer, "panic_now")).await
}

/// `width` calls in flight at once; how many were answered.
#[ic_cdk::update]
async fn fan_out(peer: Principal, width: u64) -> u64 {
    let calls: Vec<_> = (0..width)
        .map(|_| Call::unbounded_wait(peer, "ping").with_args(&(peer, 0_u64)).into_future())
        .collect();
    let mut answered = 0;
    for call in calls {
        answered += u64::from(call.await.is_ok());
    }
    answered
}

#[ic_cdk::update]
fn accept(limit: u128) -> u128 {
    api::msg_cycles_accept(limit)
}

/// What the peer took, and what came back.
#[ic_cdk::update]
async fn send_cycles(peer: Principal, amount: u128, limit: u128) -> (u128, u128) {
    let call = Call::unbounded_wait(peer, "accept").with_arg(limit).with_cycles(amount);
    let taken = call.await.expect("the peer answers").candid().expect("a number");
    (taken, api::msg_cycles_refunded())
}

/// Thirty-two bytes from the subnet's randomness.
#[ic_cdk::update]
async fn random() -> Vec<u8> {
    ic_cdk_management_canister::raw_rand().await.expect("the management canister answers")
}

#[ic_cdk::query]
fn visits() -> u64 {
    VISITS.get()
}

#[ic_cdk::query]
fn cycles() -> u128 {
    api::canister_cycle_balance()
}

#[ic_cdk::query(composite = true)]
async fn visits_of(peer: Principal) -> u64 {
    let reply = Call::bounded_wait(peer, "visits").await;
    reply.expect("the peer answers").candid().expect("a number")
}

ic_cdk::export_candid!();
