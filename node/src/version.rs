//! `bulkhead version`: what this program is and what it carries.

use std::io::{self, Write};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::cli::CommandError;
use crate::image;

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
    target: String,
    policy_schema: u32,
    modes: [&'static str; 3],
    worker_bytes: usize,
    worker_sha256: String,
}

/// Prints it to standard output, as text or as one JSON object.
///
/// # Errors
/// Standard output can't be written.
pub fn print(json: bool) -> Result<(), CommandError> {
    use rollout::Mode;

    let version = Version {
        name: "bulkhead",
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        policy_schema: 1,
        modes: [Mode::InProcess.as_str(), Mode::Shadow.as_str(), Mode::Sandboxed.as_str()],
        worker_bytes: image::IMAGES.worker.len(),
        worker_sha256: hex::encode(Sha256::digest(image::IMAGES.worker)),
    };
    let text = if json {
        serde_json::to_string(&version).map_err(io::Error::from)
    } else {
        Ok(format!(
            "bulkhead {} ({})\npolicy schema  {}\nmodes          {}\nworker image   {} bytes, sha256 {}",
            version.version,
            version.target,
            version.policy_schema,
            version.modes.join(", "),
            version.worker_bytes,
            version.worker_sha256,
        ))
    };
    text.and_then(|text| writeln!(io::stdout(), "{text}")).map_err(|error| CommandError::output(&error))
}
