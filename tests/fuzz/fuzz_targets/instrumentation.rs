//! See `fuzz::instrumentation`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz::instrumentation::run(input);
});
