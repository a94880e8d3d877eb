//! libFuzzer's program for [`holm_fuzz::certificates`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holm_fuzz::certificates::run(data));
