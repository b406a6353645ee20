//! Any bytes are the body of `POST /alknet/keys` or a clear error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &str)| {
    let (raw, text) = input;
    if raw {
        alknet::fuzzing::key(text.as_bytes());
    } else {
        let quoted = text.escape_default();
        alknet::fuzzing::key(format!(r#"{{"openssh":"ssh-{quoted}"}}"#).as_bytes());
    }
});
