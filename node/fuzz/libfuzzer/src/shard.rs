//! libFuzzer's program for [`holm_fuzz::shard`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holm_fuzz::shard::run(data));
