#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wandb_cred_fuzz::fuzz("proxy_rewrite", input));
