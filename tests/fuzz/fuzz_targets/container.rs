//! See `fuzz::container`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz::container::run(input);
});
