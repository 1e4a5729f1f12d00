//! Timers of the CDK: recurring, one-shot, cancelled, panicking.

use ic_cdk_timers::TimerId;
use std::cell::{Cell, RefCell};
use std::time::Duration;

thread_local! {
    static TICKS: Cell<u64> = const { Cell::new(0) };
    static SHOTS: Cell<u64> = const { Cell::new(0) };
    static PENDING: RefCell<Vec<TimerId>> = const { RefCell::new(Vec::new()) };
}

fn start() {
    ic_cdk_timers::set_timer_interval(Duration::from_secs(1), || async {
        TICKS.set(TICKS.get() + 1);
    });
}

#[ic_cdk::init]
fn init() {
    start();
}

/// Timers don't survive an upgrade: the interval is set again, and the counts start at zero.
#[ic_cdk::post_upgrade]
fn post_upgrade() {
    start();
}

#[ic_cdk::update]
fn once(seconds: u64, weight: u64) {
    let id = ic_cdk_timers::set_timer(Duration::from_secs(seconds), async move {
        SHOTS.set(SHOTS.get() + weight);
        ic_cdk::api::debug_print(format!("shot {weight}"));
    });
    PENDING.with_borrow_mut(|pending| pending.push(id));
}

/// The job writes and panics: the write must not last, and the interval goes on.
#[ic_cdk::update]
fn once_panicking(seconds: u64) {
    ic_cdk_timers::set_timer(Duration::from_secs(seconds), async {
        SHOTS.set(SHOTS.get() + 1_000_000);
        panic!("timer panic");
    });
}

/// Cancels every timer that `once` set; how many there were.
#[ic_cdk::update]
fn cancel_all() -> u64 {
    let pending = PENDING.take();
    let count = pending.len() as u64;
    pending.into_iter().for_each(ic_cdk_timers::clear_timer);
    count
}

/// Does nothing but let time pass.
#[ic_cdk::update]
fn nop() {}

#[ic_cdk::query]
fn ticks() -> u64 {
    TICKS.get()
}

#[ic_cdk::query]
fn shots() -> u64 {
    SHOTS.get()
}

ic_cdk::export_candid!();
