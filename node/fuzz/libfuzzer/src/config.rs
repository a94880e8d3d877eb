//! libFuzzer's program for [`holm_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holm_fuzz::config::run(data));
