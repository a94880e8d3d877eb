//! libFuzzer's program for [`holm_fuzz::membership`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holm_fuzz::membership::run(data));
