//! Other people's sandboxes, as they would be used: a fresh process with an engine for each call.

use execution::Compiler;
use sandbox_host::SandboxOptions;

use super::{Bench, CORE};
use crate::canister::Canister;
use crate::fresh::Fresh;
use crate::modules;
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Variant, interleaved};

/// Turns of the computation: about 100 us.
const TURNS: u64 = 50_000;
const ROUNDS: usize = 15;

/// Something that confines a process, given its command.
struct Sandbox {
    id: &'static str,
    what: &'static str,
    command: &'static [&'static str],
}

const SANDBOXES: [Sandbox; 3] = [
    Sandbox { id: "bare", what: "no sandbox", command: &[] },
    Sandbox {
        id: "bubblewrap",
        what: "bubblewrap (all namespaces of its own, read-only root, no capabilities)",
        command: &[
            "bwrap",
            "--ro-bind",
            "/",
            "/",
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
        ],
    },
    Sandbox {
        id: "gvisor",
        what: "gVisor (runsc do)",
        command: &["runsc", "--network=none", "--ignore-cgroups", "do"],
    },
];

/// The same computation, by a warm worker and by a process for each call: figures to read.
pub(super) fn per_call(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::this_thread(CORE)?;
    SANDBOXES.iter().map(|sandbox| beside(bench, sandbox)).collect()
}

fn beside(bench: &Bench, sandbox: &Sandbox) -> Result<Finding, String> {
    let id = format!("peers-process-{}", sandbox.id);
    let text = modules::compute(TURNS);
    let wasm = wat::parse_str(&text).map_err(|error| error.to_string())?;
    let module = bench.compiler.compile(&wasm).map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    let fresh = Fresh::new(&module, sandbox.command, Some("canister_update compute"))?;
    if let (Err(error), [program, ..]) = (fresh.run(), sandbox.command) {
        return Ok(Finding::absent(id, format!("{program} is not here, or doesn't start here: {error}")));
    }
    let sandboxed = Bench::sandboxed(SandboxOptions::default())?;
    let mut canister = Canister::new(&*bench.compiler, &wasm, 1)?;
    let variants: &mut [Variant<'_>] =
        &mut [&mut || fresh.run().map(drop), &mut || canister.update(&sandboxed, "compute")];
    let samples = interleaved(ROUNDS, 1, variants)?;
    Ok(Finding::new(
        id,
        &Compared { limit: samples[0].median(), measured: samples[1].median(), unit: Unit::Time },
        Target::None,
        true,
        format!(
            "{TURNS} turns of xorshift, compiled before: a message to a warm sandboxed canister, against a fresh \
             process with an engine, {}",
            sandbox.what
        ),
    ))
}
