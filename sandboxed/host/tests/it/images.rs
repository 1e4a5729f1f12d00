//! The real launcher and the real worker, built as the node's build script builds them.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use sandbox_host::{Images, Launchers};

#[path = "../../../images.rs"]
mod build;

/// Launchers of the test's own.
pub(crate) fn launchers() -> Arc<Launchers> {
    Launchers::start(images()).unwrap()
}

/// All images, static and without a compiler.
pub(crate) fn images() -> Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    *IMAGES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("images");
        let packages = ["--package", "sandbox-worker", "--package", "sandbox-launcher"];
        let built = build::build(env!("CARGO"), &root, &target, &packages);
        let [launcher, worker] = ["bulkhead-launcher", "sandbox-worker"].map(|program| {
            let bytes = std::fs::read(built.join(program)).unwrap();
            &*Box::leak(bytes.into_boxed_slice())
        });
        // What is tested here compiles in this process.
        Images { launcher, worker, compiler: b"" }
    })
}
