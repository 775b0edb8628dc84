#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| multifeed_fuzz_targets::proofs(data));
