//! Deterministic time slicing (`canister-execution.md` section 3.4): where a message stops, and how much it gets
//! when it goes on. Follows from counts alone, so it is the same wherever the message runs.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use execution::{Instructions, Invocation};
use wasmtime::Caller;

use crate::instance::Data;
use crate::trap::Stop;

/// The slices of a message that runs.
pub(crate) struct Slices {
    /// Of the whole message.
    limit: Instructions,
    /// Of one slice.
    slice: Instructions,
    /// What the counter started from in this slice.
    granted: Instructions,
    /// Used in the slices before.
    before: Instructions,
    /// Slices that may still follow this one.
    left: u64,
    shared: Arc<Shared>,
}

/// What a paused run and its owner tell each other.
#[derive(Default)]
pub(crate) struct Shared {
    /// Instructions used when it paused.
    used: AtomicU64,
    /// Instructions of the slice to come.
    slice: AtomicU64,
}

impl Shared {
    pub(crate) fn used(&self) -> Instructions {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn grant(&self, slice: Instructions) {
        self.slice.store(slice, Ordering::Relaxed);
    }
}

impl Slices {
    pub(crate) fn new(invocation: &Invocation) -> Self {
        let limit = invocation.instructions_max;
        let slice = invocation.slice.min(limit);
        Self {
            limit,
            slice,
            granted: slice,
            before: 0,
            left: execution::slices_max(limit, slice) - 1,
            shared: Arc::default(),
        }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// What the counter starts from.
    pub(crate) fn first(&self) -> i64 {
        i64::try_from(self.granted).unwrap_or(i64::MAX)
    }

    /// Instructions used by the message when the counter stands at `counter`.
    pub(crate) fn used(&self, counter: i64) -> Instructions {
        let granted = i64::try_from(self.granted).unwrap_or(i64::MAX);
        self.before.saturating_add(u64::try_from(granted.saturating_sub(counter)).unwrap_or(0))
    }

    /// Whether the message may go on in another slice, once `counter` is below zero.
    pub(crate) fn allow(&self, counter: i64) -> Result<(), Stop> {
        if self.used(counter) > self.limit || self.left == 0 {
            return Err(Stop::out_of_instructions(self.limit));
        }
        let over = counter.unsigned_abs();
        if over >= self.slice { Err(Stop::slice_overrun(self.granted + over, self.slice)) } else { Ok(()) }
    }

    /// Begins the next slice of `slice` instructions, less what was taken of it already. Returns what the counter
    /// starts from.
    fn begin(&mut self, counter: i64, slice: Instructions) -> i64 {
        self.before = self.used(counter);
        self.granted =
            slice.saturating_sub(counter.unsigned_abs()).min(self.limit.saturating_sub(self.before));
        self.left = self.left.saturating_sub(1);
        self.first()
    }
}

/// Runs when the counter is below zero: stops the guest, or pauses it until it is polled again.
pub(crate) async fn exhausted(mut caller: Caller<'_, Data>) -> Result<(), wasmtime::Error> {
    let counter = caller.data().counter();
    let slices = &caller.data().run().slices;
    slices.allow(counter)?;
    let shared = slices.shared();
    shared.used.store(slices.used(counter), Ordering::Relaxed);
    let mut paused = false;
    poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    let slice = shared.slice.load(Ordering::Relaxed);
    let first = caller.data_mut().run_mut().slices.begin(counter, slice);
    caller.data_mut().set_counter(first);
    Ok(())
}

/// Goes on with a future until it is pending or ready. Nothing wakes it: its owner comes back to it.
pub(crate) fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
