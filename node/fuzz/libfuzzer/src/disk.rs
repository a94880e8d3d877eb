//! libFuzzer's program for [`holm_fuzz::disk`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holm_fuzz::disk::run(data));
