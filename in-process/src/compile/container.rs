//! The container of a module: raw WebAssembly or gzip (`canister-execution.md` section 1.1).

use std::borrow::Cow;
use std::io::Read;

use execution::InvalidModule;
use flate2::read::GzDecoder;

use super::invalid;

/// Uncompressed module, bytes.
pub(super) const MODULE_BYTES_MAX: usize = 100 << 20;

const WASM_MAGIC: &[u8] = b"\0asm";
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 0x08];
const GZIP_BYTES_MIN: usize = 16;

/// Gives the WebAssembly bytes of an uploaded module.
pub(super) fn unpack(module: &[u8]) -> Result<Cow<'_, [u8]>, InvalidModule> {
    if module.starts_with(WASM_MAGIC) {
        if module.len() > MODULE_BYTES_MAX {
            return Err(too_large(module.len()));
        }
        return Ok(Cow::Borrowed(module));
    }
    if module.starts_with(GZIP_MAGIC) {
        return gunzip(module).map(Cow::Owned);
    }
    Err(invalid("unsupported canister module format: the module starts with neither \\0asm nor 1f 8b 08"))
}

/// The footer's size is checked before anything is expanded, and expanding stops one byte after it.
fn gunzip(module: &[u8]) -> Result<Vec<u8>, InvalidModule> {
    let footer = module.last_chunk::<4>().filter(|_| module.len() >= GZIP_BYTES_MIN).ok_or_else(|| {
        let bytes = module.len();
        invalid(format!("gzip: {bytes} bytes are too few, a gzip file has {GZIP_BYTES_MIN} at least"))
    })?;
    let declared = u32::from_le_bytes(*footer);
    if declared as usize > MODULE_BYTES_MAX {
        return Err(too_large(declared as usize));
    }
    // No capacity is reserved: a short file may claim 100 MiB.
    let mut wasm = Vec::new();
    GzDecoder::new(module)
        .take(u64::from(declared) + 1)
        .read_to_end(&mut wasm)
        .map_err(|error| invalid(format!("gzip: {error}")))?;
    if wasm.len() != declared as usize {
        return Err(invalid(format!(
            "gzip: the footer declares {declared} bytes, the content has another size"
        )));
    }
    Ok(wasm)
}

pub(super) fn too_large(bytes: usize) -> InvalidModule {
    invalid(format!("module: {bytes} bytes uncompressed, the limit is {MODULE_BYTES_MAX}"))
}
