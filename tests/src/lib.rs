//! Integration tests by subject, in `tests/it`; canister sources and their built modules, in `canisters`.

#![forbid(unsafe_code)]
