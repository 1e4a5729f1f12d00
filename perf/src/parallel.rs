//! The same work on several cores at once.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use execution::EXECUTOR_STACK_BYTES;

use crate::modules::XORSHIFT_SEED;
use crate::placement::pin;

/// How long work is counted.
const WINDOW: Duration = Duration::from_millis(250);

/// Something that a thread does over and over.
pub(crate) type Work<'a> = Box<dyn FnMut() -> Result<(), String> + Send + 'a>;

/// About 20 us of arithmetic.
pub(crate) fn compute() -> Result<(), String> {
    let mut random = std::hint::black_box(XORSHIFT_SEED);
    for _ in 0..10_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
    }
    std::hint::black_box(random);
    Ok(())
}

/// Operations a second of all workers together, each a thread on a core of its own.
pub(crate) fn rate(cores: &[usize], workers: &mut [Work<'_>]) -> Result<f64, String> {
    let start = Barrier::new(workers.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .zip(cores)
            .map(|(worker, core)| {
                let start = &start;
                std::thread::Builder::new()
                    .stack_size(EXECUTOR_STACK_BYTES)
                    .spawn_scoped(scope, move || {
                        let pinned = pin(None, *core);
                        start.wait();
                        pinned.and_then(|()| rate_of_one(worker))
                    })
                    .map_err(|error| format!("a thread: {error}"))
            })
            .collect::<Result<_, _>>()?;
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked")?).sum()
    })
}

fn rate_of_one(work: &mut Work<'_>) -> Result<f64, String> {
    work()?;
    let (start, mut operations) = (Instant::now(), 0_u32);
    while start.elapsed() < WINDOW {
        work()?;
        operations += 1;
    }
    Ok(f64::from(operations) / start.elapsed().as_secs_f64())
}
