//! The real launcher and the real worker, built as the node's build script builds them.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use sandbox_host::{Images, Launchers};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Launchers of the test's own.
pub(crate) fn launchers() -> Arc<Launchers> {
    Launchers::start(images()).unwrap()
}

/// All images, static and without a compiler. A nested cargo, because here features are unified with it.
fn images() -> Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    *IMAGES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("images");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root).args(["build", "--release", "--locked", "--target", TARGET]);
        cargo.arg("--target-dir").arg(&target).args(["-p", "sandbox-worker", "-p", "sandbox-launcher"]);
        for inherited in ["RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"] {
            cargo.env_remove(inherited);
        }
        cargo
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
        assert!(cargo.status().unwrap().success(), "the images can be built");
        let [launcher, worker] = ["bulkhead-launcher", "sandbox-worker"].map(|program| {
            let bytes = std::fs::read(target.join(TARGET).join("release").join(program)).unwrap();
            &*Box::leak(bytes.into_boxed_slice())
        });
        Images { launcher, worker }
    })
}
