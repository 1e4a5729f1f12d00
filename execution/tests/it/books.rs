//! Whatever happens: no cycle is made or lost, every call has one answer, every message one end.

use execution::{IngressStatus, SubnetConfig};
use proptest::prelude::*;

use crate::history::{self, Event, History, free, held};

/// Runs a history, with `after` asked after every event.
fn run(
    config: SubnetConfig,
    events: &[Event],
    mut after: impl FnMut(&History) -> Result<(), TestCaseError>,
) -> Result<History, TestCaseError> {
    let mut history = History::new(config, 1);
    for event in events {
        history.event(event);
        after(&history)?;
    }
    history.settle();
    after(&history)?;
    Ok(history)
}

/// That nothing is open where nothing is left to do.
fn nothing_open(history: &History) -> Result<(), TestCaseError> {
    for canister in history.bench.subnet.state().canisters.values() {
        prop_assert!(canister.calls.contexts.is_empty(), "{:?}", canister.calls.contexts);
        prop_assert!(canister.calls.callbacks.is_empty() && canister.calls.outstanding.is_empty());
        prop_assert!(canister.inputs.is_empty() && canister.paused.is_none());
    }
    for id in &history.messages {
        prop_assert!(history.bench.subnet.status(id).is_terminal(), "{id:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn exactly_what_the_price_list_says_leaves_and_nothing_else(events in history::calm()) {
        let history = run(SubnetConfig::application(), &events, |history| {
            prop_assert_eq!(held(history.bench.subnet.state()), history.owed);
            Ok(())
        })?;
        nothing_open(&history)?;
    }

    #[test]
    fn nothing_gets_lost_by_stops_uninstalls_and_deletions_but_what_expired_calls_carried(
        events in history::wild(),
    ) {
        let history = run(free(), &events, |history| {
            let held = held(history.bench.subnet.state());
            prop_assert!(held <= history.owed, "{} made from nothing", held - history.owed);
            prop_assert!(history.owed - held <= history.may_lose, "{} lost", history.owed - held);
            Ok(())
        })?;
        nothing_open(&history)?;
        let state = history.bench.subnet.state().clone();
        let mut history = history;
        prop_assert_eq!(history.bench.subnet.state_root(), execution::state_root(&state));
    }

    #[test]
    fn every_call_is_answered_once_and_every_message_ends_once(events in history::wild()) {
        let mut ends: Vec<Option<IngressStatus>> = Vec::new();
        let history = run(free(), &events, |history| {
            ends.resize(history.messages.len(), None);
            for (id, end) in history.messages.iter().zip(&mut ends) {
                let now = history.bench.subnet.status(id);
                match end {
                    Some(end) => prop_assert_eq!(&*end, &now),
                    None if now.is_terminal() => *end = Some(now),
                    None => {}
                }
            }
            Ok(())
        })?;
        let mut answers = history.answers();
        for ran in history.runs.iter().filter(|ran| ran.is_committed()) {
            let caller = ran.executed.canister;
            for call in ran.claim.outcome.effects.iter().flat_map(|effects| &effects.calls) {
                let mut programs = vec![call.on_reply.environment, call.on_reject.environment];
                programs.dedup();
                let answered: u64 =
                    programs.into_iter().filter_map(|program| answers.remove(&(caller, program))).sum();
                let gone = history.gutted.contains(&caller);
                prop_assert!(answered == 1 || gone && answered == 0, "{} answers to {:?}", answered, call);
            }
        }
        prop_assert!(answers.is_empty(), "answers to no call: {:?}", answers);
    }
}
