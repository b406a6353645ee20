//! Any bytes are a request for a repository by its one name, or none.
#![no_main]

use alknet_fuzz::run;
use alknet_git::{RepositoryName, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (framed, noise) = input;
    let mut bytes = noise.to_vec();
    // Noise with the right length gets further.
    if framed {
        bytes = format!("{:04x}", noise.len() + 4).into_bytes();
        bytes.extend(noise);
    }
    let mut rest = bytes.as_slice();
    if let Ok(request) = run(Request::read(&mut rest)) {
        plain(&request.repository);
        let line = request.to_line("host");
        let again = run(Request::read(&mut line.as_slice())).unwrap();
        assert_eq!(again, request);
    }
    if let Ok(name) = String::from_utf8_lossy(noise).parse::<RepositoryName>() {
        plain(&name);
        assert_eq!(RepositoryName::from_path(&format!("/{name}.git")).unwrap(), name);
    }
});

/// A path below a folder, and no option of a program.
fn plain(name: &RepositoryName) {
    for word in name.as_str().split('/') {
        assert!(!word.is_empty() && !word.starts_with(['.', '-']), "{name}");
        assert!(!word.ends_with(".git") && !word.ends_with(".lock"), "{name}");
        assert!(word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{name}");
    }
}
