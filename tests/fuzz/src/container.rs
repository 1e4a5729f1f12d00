//! Uploads, raw or gzip: nothing panics, a refusal says why, and compressing a module changes nothing but its
//! container.

use std::io::Write as _;

use execution::Limits;
use flate2::{Compression, write::GzEncoder};
use in_process::compile::instrument;

/// Takes any bytes as an upload.
pub fn run(upload: &[u8]) {
    let limits = Limits::application();
    let result = instrument(&limits, upload).map(|module| (module.wasm, module.interface));
    if let Err(refused) = &result {
        assert!(!refused.0.is_empty(), "a refusal says why");
    }
    if upload.starts_with(b"\0asm") {
        let packed = instrument(&limits, &gzip(upload)).map(|module| (module.wasm, module.interface));
        assert_eq!(packed, result, "the same module in another container");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes it")
}
