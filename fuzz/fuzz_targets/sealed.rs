//! Any bytes are a sealed vault or a clear error; what is one, is written as it was read.
#![no_main]

use alknet_vault::{Ciphertext, SealedVault};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(sealed) = SealedVault::parse(bytes) {
        assert_eq!(&sealed.to_bytes()[..], bytes);
    }
    if let Ok(ciphertext) = Ciphertext::parse(bytes) {
        assert_eq!(&ciphertext.to_bytes()[..], bytes);
    }
});
