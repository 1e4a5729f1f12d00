//! See `fuzz::code_cache`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz::code_cache::run(input);
});
