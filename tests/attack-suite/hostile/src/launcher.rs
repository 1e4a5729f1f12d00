//! A launcher that puts on the layers that its image says: for a control none, for a layer alone that one. All the rest
//! is the product's launcher.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::process::ExitCode;

use hostile::LAYERS_MARK;

/// The mark, then the layers' bits; the suite writes them into the image.
static LAYERS: [u8; 18] = {
    let mut bytes = [0; 18];
    let mut at = 0;
    while at < LAYERS_MARK.len() {
        bytes[at] = LAYERS_MARK[at];
        at += 1;
    }
    bytes
};

fn main() -> ExitCode {
    // Opaque, or the compiler takes the zeros for what will always stand there.
    let [.., low, high] = *black_box(&LAYERS);
    match sandbox_os::launch::serve(hostile::layers_from_bytes([low, high])) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
