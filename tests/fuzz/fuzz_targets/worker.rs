//! See `fuzz::worker`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz::worker::run(input);
});
