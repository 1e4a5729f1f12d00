//! How slow an honest worker can be: what `SandboxOptions` says of its pace, beside what code does that is as slow as
//! it can be for its instructions.

use std::fmt::Write as _;

use execution::{EntryPoint, Outcome};
use sandbox_host::{SandboxOptions, Sandboxed};
use sandbox_os::processor;

use super::{Bench, CORE};
use crate::canister::Canister;
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};

/// Distance of two nodes of the chain that is chased: each in a line of its own, sixteen on a page.
const STRIDE: u64 = 256;
const HEAP_BYTES: u64 = 1 << 32;
const NODES: u64 = HEAP_BYTES / STRIDE;
const UNROLLED: u64 = 16;
const LOADS: u64 = 1 << 23;
const PAGES: u64 = HEAP_BYTES / 4096;
const STABLE_PAGES: u64 = 1 << 16;
const GROWTHS: u64 = 30_000;

/// A canister whose methods are as slow for their instructions as honest code can be.
fn module() -> String {
    let chase = "(i32.load ".repeat(UNROLLED as usize) + "(local.get $at)" + &")".repeat(UNROLLED as usize);
    let mut text = String::new();
    // The chain: a full-period linear congruence, so that no next address can be guessed from the last ones.
    let link = format!(
        "(local.set $i (i32.const 0))
         (loop $more
           (i32.store (i32.mul (local.get $i) (i32.const {STRIDE}))
             (i32.mul (i32.const {STRIDE})
               (i32.and (i32.const {mask})
                 (i32.add (i32.mul (local.get $i) (i32.const 1664525)) (i32.const 1013904223)))))
           (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {NODES}))))",
        mask = NODES - 1
    );
    let _ = write!(
        text,
        "(module
           (import \"ic0\" \"msg_reply\" (func $reply))
           (import \"ic0\" \"stable64_grow\" (func $stable_grow (param i64) (result i64)))
           (import \"ic0\" \"stable64_read\" (func $stable_read (param i64 i64 i64)))
           (import \"ic0\" \"stable64_write\" (func $stable_write (param i64 i64 i64)))
           (import \"ic0\" \"msg_arg_data_copy\" (func $arg (param i32 i32 i32)))
           (memory 65536)
           (func $link (local $i i32) {link})
           (func (export \"canister_query link\") (call $link) (call $reply))
           (func (export \"canister_query chase\") (local $at i32) (local $i i32)
             (call $link)
             (local.set $i (i32.const {turns}))
             (loop $more
               (local.set $at {chase})
               (br_if $more (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
             (drop (local.get $at))
             (call $reply))
           (func (export \"canister_query read\") (local $i i32)
             (loop $more
               (drop (i32.load (i32.mul (local.get $i) (i32.const 4096))))
               (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {PAGES}))))
             (call $reply))
           (func (export \"canister_query write\") (local $i i32)
             (loop $more
               (i32.store (i32.mul (local.get $i) (i32.const 4096)) (i32.const 1))
               (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {PAGES}))))
             (call $reply))
           (func (export \"canister_query none\") (call $reply))
           (func (export \"canister_query arg\") (call $arg (i32.const 0) (i32.const 0) (i32.const 2000000)) (call $reply))
           (func (export \"canister_update stable\") (local $i i64)
             (drop (call $stable_grow (i64.const {stable_wasm_pages})))
             (loop $more
               (call $stable_write (i64.mul (local.get $i) (i64.const 4096)) (i64.const 0) (i64.const 1))
               (br_if $more (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 1))) (i64.const {STABLE_PAGES}))))
             (call $reply))
           (func (export \"canister_query stable_read\") (local $i i64)
             (loop $more
               (call $stable_read (i64.const 0) (i64.mul (local.get $i) (i64.const 4096)) (i64.const 1))
               (br_if $more (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 1))) (i64.const {STABLE_PAGES}))))
             (call $reply)))",
        turns = LOADS / UNROLLED,
        stable_wasm_pages = STABLE_PAGES / 16,
    );
    text
}

/// Grows its memory page by page.
fn growing() -> String {
    format!(
        "(module
           (import \"ic0\" \"msg_reply\" (func $reply))
           (memory 1 65536)
           (func (export \"canister_update none\") (call $reply))
           (func (export \"canister_update grow\") (local $i i32)
             (loop $more
               (drop (memory.grow (i32.const 1)))
               (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {GROWTHS}))))
             (call $reply)))"
    )
}

/// Nanoseconds of processor time, and instructions.
type Cost = (f64, f64);

/// The cost of one run. Its worker must have run before, and must live on.
fn measured(sandboxed: &Sandboxed, run: impl FnOnce() -> Result<Outcome, String>) -> Result<Cost, String> {
    // Processor time is what claims are held against, and what others do on this machine hardly changes it.
    let taken = || {
        let times = sandboxed.pids().into_iter().filter_map(|pid| processor::time(pid).ok());
        times.map(|time| time.as_nanos() as f64).sum::<f64>()
    };
    let before = taken();
    let outcome = run()?;
    Ok((taken() - before, outcome.instructions as f64))
}

fn query(canister: &mut Canister, sandboxed: &Sandboxed, method: &str, arg: &[u8]) -> Result<Cost, String> {
    let entry = EntryPoint::Query { method: method.into(), arg: arg.into() };
    measured(sandboxed, || canister.query(sandboxed, entry))
}

fn update(canister: &mut Canister, sandboxed: &Sandboxed, method: &str) -> Result<Cost, String> {
    let entry = EntryPoint::Update { method: method.into(), arg: [].into() };
    measured(sandboxed, || canister.run(sandboxed, entry))
}

/// Time of honest code that is as slow as it can be, against what its claims explain.
pub(super) fn pace(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::executor(CORE)?;
    let options = SandboxOptions::default();
    let instruction = 1e9 / options.claimed_instructions_per_second_min as f64;
    let page = 1e9 / options.pages_per_second_min as f64;
    let sandboxed = Bench::sandboxed(options)?;
    let mut canister = Canister::from_text(&*bench.compiler, &module(), 1)?;
    let mut growing = Canister::from_text(&*bench.compiler, &growing(), 2)?;
    canister.update(&sandboxed, "stable")?;
    let mut findings = Vec::new();
    let mut found = |id: &str, what: &str, nanoseconds: f64, instructions: f64, pages: f64| {
        let allowed = instructions * instruction + pages * page;
        findings.push(Finding::new(
            format!("pace-{id}"),
            &Compared { limit: allowed, measured: nanoseconds, unit: Unit::Time },
            Target::AtMost(0.5),
            true,
            format!(
                "{what}: {:.2} ns for each of {instructions:.0} instructions{}, against the time that they explain",
                nanoseconds / instructions.max(1.0),
                if pages > 0.0 { format!(", {:.0} ns for each of {pages:.0} pages", nanoseconds / pages) } else { String::new() }
            ),
        ));
    };
    query(&mut canister, &sandboxed, "none", &[])?;
    let (none, _) = query(&mut canister, &sandboxed, "none", &[])?;
    let (link, linked) = query(&mut canister, &sandboxed, "link", &[])?;
    let (chase, chased) = query(&mut canister, &sandboxed, "chase", &[])?;
    found("chase", "loads that miss every cache, in a heap of 4 GiB", chase - link, chased - linked, 0.0);
    // What a run writes stays until it is undone: each of these begins with a worker that has touched nothing.
    for (method, what, pages) in [
        ("write", "first writes to pages of a heap of 4 GiB", PAGES),
        ("read", "first reads of pages of a heap of 4 GiB", PAGES),
        ("stable_read", "first reads of pages of stable memory, a byte each", STABLE_PAGES),
    ] {
        let fresh = Bench::sandboxed(SandboxOptions::default())?;
        query(&mut canister, &fresh, "none", &[])?;
        let (time, instructions) = query(&mut canister, &fresh, method, &[])?;
        found(method, what, time, instructions, pages as f64);
    }
    // An update: a query's memory would shrink again, which takes another worker.
    update(&mut growing, &sandboxed, "none")?;
    let (time, instructions) = update(&mut growing, &sandboxed, "grow")?;
    found("grow", "memory.grow by a page at a time", time, instructions, 0.0);
    let arg = vec![1; 2_000_000];
    let (time, instructions) = query(&mut canister, &sandboxed, "arg", &arg)?;
    found("arg", "an argument of 2 MB, copied", time - none, instructions, 0.0);
    Ok(findings)
}
