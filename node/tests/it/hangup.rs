//! SIGHUP.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bulkhead_node::hangup::ReloadOnHangup;
use rollout::{LiveOptions, LivePolicy, Trigger};
use rustix::process::{Signal, getpid, kill_process};

/// Longer than any wait that ends well.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn each_hangup_reads_the_policy_again_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    std::fs::write(&path, "schema = 1\n").unwrap();
    let (tell, told) = mpsc::channel();
    let on_reload: rollout::OnReload = Box::new(move |result| {
        tell.send(result.map(|receipt| (receipt.trigger, receipt.generation)).map_err(ToString::to_string))
            .unwrap();
    });
    let live = LivePolicy::start(LiveOptions { on_reload, ..LiveOptions::new(&path, "s", "n") }).unwrap();
    let _reloads = ReloadOnHangup::start(Arc::clone(&live)).unwrap();
    for _ in 0..2 {
        kill_process(getpid(), Signal::HUP).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Ok((Trigger::Hangup, 1)));
    }
}
