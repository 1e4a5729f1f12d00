//! The programs that the suite starts, and how what they leave out is written into them.

use hostile::{LAYERS_MARK, PLAN_MARK, Plan};
use sandbox_os::Layers;

/// The product's launcher.
pub static LAUNCHER: &[u8] = include_bytes!(env!("LAUNCHER_IMAGE"));
static OPEN_LAUNCHER: &[u8] = include_bytes!(env!("OPEN_LAUNCHER_IMAGE"));
static HOSTILE_WORKER: &[u8] = include_bytes!(env!("HOSTILE_WORKER_IMAGE"));

/// A launcher that puts on `layers` and no other.
#[must_use]
pub fn launcher_with(layers: Layers) -> Vec<u8> {
    written(OPEN_LAUNCHER, LAYERS_MARK, &layers.bits().to_le_bytes())
}

/// A hostile worker that does to itself what `plan` says.
#[must_use]
pub fn worker_with(plan: Plan) -> Vec<u8> {
    written(HOSTILE_WORKER, PLAN_MARK, &plan.to_bytes())
}

/// The image with `bytes` behind its mark.
///
/// # Panics
/// If the mark isn't there exactly once: then the image isn't what it should be.
fn written(image: &[u8], mark: [u8; 16], bytes: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = image
        .windows(mark.len())
        .enumerate()
        .filter(|(_, window)| *window == mark)
        .map(|(at, _)| at)
        .collect();
    let [at] = places[..] else { panic!("the image has its mark {} times", places.len()) };
    let mut image = image.to_vec();
    image[at + mark.len()..][..bytes.len()].copy_from_slice(bytes);
    image
}
