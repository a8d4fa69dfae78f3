#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pvferry_fuzz::opening(bytes));
