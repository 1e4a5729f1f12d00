//! Files of compiled modules: no bytes make the node panic, under a checksum that is right or not, and what decodes
//! says the same when it is written again.

use bulkhead_node::code_cache::Fingerprint;
use bulkhead_node::code_cache::entry::{Key, MAGIC, decode, encode};
use execution::memory::Blob;
use execution::{Module, ModuleHash};

/// What came of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// No entry.
    Refused,
    /// An account with its output.
    Decoded,
}

const KEY: Key = Key { fingerprint: Fingerprint([1; 32]), module: ModuleHash([2; 32]) };

/// Takes any bytes as a file, and as the account and the output of one whose key and checksum are right.
pub fn run(input: &[u8]) -> Came {
    assert!(decode(KEY, input).is_err(), "a checksum over the key was right by chance");
    let covered = [&KEY.fingerprint.0[..], &KEY.module.0, input].concat();
    let file = [&MAGIC[..], &ModuleHash::of(&covered).0, &covered].concat();
    let Ok((interface, native)) = decode(KEY, &file) else { return Came::Refused };
    let code = Blob::new(native).expect("a memory file");
    let module = Module { hash: KEY.module, wasm_bytes: 0, interface, code };
    let again = encode(KEY.fingerprint, &module).expect("it is read back");
    assert_eq!(decode(KEY, &again), Ok((module.interface, native)));
    Came::Decoded
}
