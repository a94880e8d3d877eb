//! libFuzzer's program for [`holm_fuzz::causality`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holm_fuzz::causality::run(data));
