//! Any text is a token or none.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if alknet::fuzzing::token(text) {
        assert!(text.starts_with("alk_") && text.is_ascii());
    }
});
