//! Any text is a configuration or a clear error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| alknet::fuzzing::config(text));
