//! How slow an honest worker can be, and so how long one may take: by the node's clock, and by the kernel's account
//! of the worker's processor time. Neither ever enters a result.

use std::time::Duration;

use crate::options::SandboxOptions;

/// How long a worker that waits for its core is waited for, in times of what it may take on it: it may stand behind
/// several others, with a third of the share of each (`sandbox_os::processor::behind`).
const STARVED: u32 = 10;
/// Bytes a second that a worker decodes, copies and encodes of its requests and replies.
const BYTES_PER_SECOND: u64 = 100_000_000;

/// What a worker can do in a second at worst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Of honest code at its slowest.
    claimed: u64,
    /// Of code that a round waits for.
    running: u64,
    pages: u64,
    slack: Duration,
    step: Duration,
}

/// Something that takes a worker time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) instructions: u64,
    /// Pages of 4 KiB that it may touch for the first time.
    pub(crate) pages: u64,
    /// Bytes of request and reply.
    pub(crate) bytes: u64,
}

impl Work {
    /// Both, one after the other in one memory: a page is touched for the first time once.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            instructions: self.instructions.saturating_add(other.instructions),
            pages: self.pages.max(other.pages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// By the node's clock, whatever the reason.
    pub(crate) wall: Duration,
    /// Neither on a processor nor waiting for one, all such moments together: it has nothing to wait for but the node.
    pub(crate) idle: Duration,
    /// On processors; `None`: it isn't looked at, and the worker isn't put behind others meanwhile.
    pub(crate) processor: Option<Duration>,
}

impl Pace {
    pub(crate) fn new(options: &SandboxOptions) -> Self {
        Self {
            claimed: options.claimed_instructions_per_second_min,
            running: options.instructions_per_second_min,
            pages: options.pages_per_second_min,
            slack: options.processor_slack,
            step: options.step_patience,
        }
    }

    /// The processor time that honest code takes at most for `work`.
    pub(crate) fn explained(&self, work: Work) -> Duration {
        self.at_most(work, self.claimed)
    }

    fn at_most(&self, work: Work, instructions_per_second: u64) -> Duration {
        let at = |count: u64, per_second: u64| {
            let nanoseconds = u128::from(count) * 1_000_000_000 / u128::from(per_second.max(1));
            Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
        };
        [
            at(work.instructions, instructions_per_second),
            at(work.pages, self.pages),
            at(work.bytes, BYTES_PER_SECOND),
        ]
        .into_iter()
        .fold(self.slack, Duration::saturating_add)
    }

    /// For a run that does at most `work`.
    pub(crate) fn run(&self, work: Work) -> Patience {
        let processor = self.at_most(work, self.running);
        Patience {
            wall: self.step.saturating_add(processor.saturating_mul(STARVED)),
            idle: self.step,
            processor: Some(processor),
        }
    }
}

impl Patience {
    /// For anything but running.
    pub(crate) fn step(step: Duration) -> Self {
        Self { wall: step, idle: step, processor: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_work_explains_time_and_none_overflows() {
        let options = SandboxOptions {
            instructions_per_second_min: 1_000,
            claimed_instructions_per_second_min: 500,
            pages_per_second_min: 10,
            processor_slack: Duration::from_millis(7),
            step_patience: Duration::from_secs(1),
            ..SandboxOptions::default()
        };
        let pace = Pace::new(&options);
        let work = |instructions, pages, bytes| Work { instructions, pages, bytes };
        assert_eq!(pace.explained(Work::default()), Duration::from_millis(7));
        assert_eq!(pace.explained(work(500, 0, 0)), Duration::from_millis(1_007));
        assert_eq!(pace.explained(work(0, 20, 0)), Duration::from_millis(2_007));
        assert_eq!(pace.explained(work(0, 0, 100_000_000)), Duration::from_millis(1_007));
        let all = pace.run(work(500, 20, 0));
        assert_eq!(all.processor, Some(Duration::from_millis(2_507)));
        assert_eq!(all.wall, Duration::from_millis(1_000 + 25_070));
        assert!(pace.run(work(u64::MAX, u64::MAX, u64::MAX)).wall > Duration::from_secs(1 << 30));
    }
}
