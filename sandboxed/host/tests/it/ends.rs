//! What the end of a worker says of it: who did it, and nothing of what it had said before.

use std::time::Duration;

use execution::{Backend, BackendError};
use sandbox_host::Violations;
use sandbox_os::Ended;

use crate::canister::update;
use crate::peer::{Peers, snapshot};

const PATIENCE: Duration = Duration::from_secs(10);
const SIGSYS: i32 = 31;
const SIGSEGV: i32 = 11;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// What comes of a worker that ends like this in the middle of a call, and how it is counted.
fn end(ended: Ended) -> (String, u64, Violations) {
    let mut peers = Peers::new(|peer| peer.until_execute().map(drop));
    peers.ended = ended;
    let sandbox = peers.sandbox(PATIENCE);
    let error = sandbox.execute(&snapshot(), &update(9, "m")).unwrap_err();
    let status = sandbox.status();
    let counted = matches!(error, BackendError::Violation(_));
    assert_eq!(status.violations, u64::from(counted), "{error}");
    (error.to_string(), status.deaths, status.violations_by_kind)
}

#[test]
fn a_death_that_no_correct_worker_dies_is_a_violation_that_says_what_happened() {
    let death = Violations { deaths: 1, ..Violations::default() };
    for (ended, text) in [
        (
            Ended::Signal(SIGSYS),
            "violation: the worker was killed by SIGSYS: it made a system call outside its filter",
        ),
        (Ended::Signal(SIGSEGV), "violation: the worker was killed by SIGSEGV"),
        (Ended::Exited(3), "violation: the worker ended with exit code 3, which is none of a worker's"),
    ] {
        assert_eq!(end(ended), (text.to_owned(), 1, death));
    }
}

#[test]
fn what_others_or_its_own_code_ended_is_a_death_and_no_violation() {
    for (ended, text) in [
        (Ended::Signal(SIGKILL), "the sandbox worker died: killed by SIGKILL"),
        (Ended::Signal(SIGTERM), "the sandbox worker died: killed by signal 15"),
        // In the middle of a call, the code of a good end is no better than another.
        (Ended::Exited(0), "the sandbox worker died: exit code 0: the socket was closed"),
        (
            Ended::Exited(14),
            "the sandbox worker died: exit code 14: the code or the memory could not be loaded",
        ),
    ] {
        assert_eq!(end(ended), (text.to_owned(), 1, Violations::default()));
    }
}
