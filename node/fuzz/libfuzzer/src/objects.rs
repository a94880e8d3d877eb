//! libFuzzer's program for [`holm_fuzz::objects`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holm_fuzz::objects::run(data));
