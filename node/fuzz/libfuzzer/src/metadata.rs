//! libFuzzer's program for [`holm_fuzz::metadata`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holm_fuzz::metadata::run(data));
