//! A real module of more than 6 MB: the template that the Azle toolchain puts TypeScript canisters into, an engine for
//! JavaScript above all. It is not ours to ship: npm fetches the package, once, into a cache beside the build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use execution::ModuleHash;

/// The package; npm checks what it fetches against the registry's checksum.
const PACKAGE: &str = "azle@0.32.0";
/// The file that `npm pack` leaves.
const ARCHIVE: &str = "azle-0.32.0.tgz";
/// The module in it.
const MEMBER: &str = "package/dist/canister_templates/experimental.wasm";
/// SHA-256 of the module: nothing else is run.
const SHA256: &str = "01cf6c9a6738ba8b4810800b27088a432e1b76dc5ec3a341932375ce11e19547";
/// A query of the template, which no application has to be in place for.
pub(crate) const METHOD: &str = "_azle_heap_allocation";

/// The module. The error says why there is none, which is no fault of the product's.
pub(crate) fn module() -> Result<Vec<u8>, String> {
    let cache = cache().ok_or("this program is in no build directory")?;
    let file = cache.join("azle-template.wasm");
    if let Ok(wasm) = fs::read(&file)
        && is_the_one(&wasm)
    {
        return Ok(wasm);
    }
    fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let wasm = fetch(&cache)?;
    if !is_the_one(&wasm) {
        return Err(format!("{PACKAGE} has another module than it had"));
    }
    // Without a cache it is fetched again next time.
    let _not_kept = fs::write(&file, &wasm);
    Ok(wasm)
}

/// `target/perf-modules`.
fn cache() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.parent()?.join("perf-modules"))
}

fn is_the_one(wasm: &[u8]) -> bool {
    format!("{:?}", ModuleHash::of(wasm)) == SHA256
}

fn fetch(cache: &Path) -> Result<Vec<u8>, String> {
    let mut npm = Command::new("npm");
    npm.args([
        "pack",
        PACKAGE,
        "--silent",
        "--fetch-retries=1",
        "--fetch-timeout=60000",
        "--pack-destination",
    ]);
    output(npm.arg(cache))?;
    let mut tar = Command::new("tar");
    Ok(output(tar.arg("-xzOf").arg(cache.join(ARCHIVE)).arg(MEMBER))?.stdout)
}

fn output(command: &mut Command) -> Result<Output, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}: {}", output.status, why.lines().next().unwrap_or_default()))
}
