//! libFuzzer's program for [`holm_fuzz::messages`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holm_fuzz::messages::run(data));
