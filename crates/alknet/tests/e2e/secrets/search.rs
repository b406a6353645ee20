//! Secrets, and everywhere they must not be.

use std::{fs, path::Path};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use bytes::Bytes;

/// What must not be found, and where it is looked for.
#[derive(Default)]
pub(super) struct Search {
    secrets: Vec<(String, Vec<u8>)>,
    /// Bytes as the characters of the same numbers, so that they can be searched as text.
    places: Vec<(String, String)>,
}

impl Search {
    pub(super) fn secret(&mut self, name: &str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        assert!(secret.len() >= 8, "too short to search for: {name}");
        self.secrets.push((name.to_owned(), secret.to_vec()));
    }

    /// A secret that is the text of random bytes, after a prefix: both count.
    pub(super) fn encoded(&mut self, name: &str, text: &str, prefix: &str) {
        let encoded = text.strip_prefix(prefix).unwrap();
        self.secret(name, encoded);
        self.secret(&format!("{name}, decoded"), URL_SAFE_NO_PAD.decode(encoded).unwrap());
    }

    pub(super) fn place(&mut self, name: &str, content: impl AsRef<[u8]>) {
        let content = content.as_ref().iter().copied().map(char::from).collect();
        self.places.push((name.to_owned(), content));
    }

    /// Every file below a folder.
    pub(super) fn folder(&mut self, name: &str, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = format!("{name}/{}", entry.file_name().display());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                self.folder(&name, &entry.path());
            } else if kind.is_file() {
                self.place(&name, fs::read(entry.path()).unwrap());
            }
        }
    }

    /// The command lines and environments of all that runs.
    pub(super) fn processes(&mut self) {
        for entry in fs::read_dir("/proc").unwrap().map(Result::unwrap) {
            for file in ["cmdline", "environ"] {
                // It may have ended meanwhile.
                if let Ok(content) = fs::read(entry.path().join(file)) {
                    self.place(&format!("{}/{file}", entry.path().display()), content);
                }
            }
        }
    }

    /// Each secret that is somewhere, and where.
    pub(super) fn found(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, secret) in &self.secrets {
            for (form, text) in forms(secret) {
                for (place, content) in &self.places {
                    if content.contains(&text) {
                        found.push(format!("{name} as {form} in {place}"));
                    }
                }
            }
        }
        found
    }
}

/// How bytes get into text.
fn forms(secret: &[u8]) -> Vec<(&'static str, String)> {
    let list = |start: &str, form: fn(&u8) -> String| {
        secret.iter().map(form).collect::<Vec<_>>().join(start)
    };
    let mut forms = vec![
        ("itself", secret.iter().copied().map(char::from).collect()),
        ("hex", hex::encode(secret)),
        ("upper-case hex", hex::encode_upper(secret)),
        ("a list of numbers", list(", ", u8::to_string)),
        ("a list in hex", list(", ", |byte| format!("{byte:#04x}"))),
        ("a list in hex", list(":", |byte| format!("{byte:02x}"))),
        ("an escaped string", secret.escape_ascii().to_string()),
    ];
    // In the middle of something longer it begins at any of three places of four letters.
    for before in 0..3 {
        let shifted = [&[0; 2][..before], secret].concat();
        for engine in [STANDARD, URL_SAFE] {
            let text = engine.encode(&shifted);
            // What the neighbours have a part in is cut off.
            let end = text.trim_end_matches('=').len() - 1;
            let start = if before == 0 { 0 } else { 4 };
            forms.push(("base64", text[start..end].to_owned()));
        }
    }
    forms
}

#[test]
fn a_secret_is_found_in_every_form() {
    let mut search = Search::default();
    search.secret("it", b"\x01secret\xff-\xfe bytes");
    search.place("nowhere", b"\x01secret\xff-\xfe byte");
    assert!(search.found().is_empty());
    let written: [String; 7] = [
        hex::encode(&search.secrets[0].1),
        format!("{:?}", search.secrets[0].1),
        format!("{:02x?}", Bytes::copy_from_slice(&search.secrets[0].1)),
        format!("{:?}", Bytes::copy_from_slice(&search.secrets[0].1)),
        STANDARD.encode([b"1", &search.secrets[0].1[..], b"2"].concat()),
        URL_SAFE_NO_PAD.encode([b"12", &search.secrets[0].1[..]].concat()),
        STANDARD.encode([b"123", &search.secrets[0].1[..], b"4"].concat()),
    ];
    for text in written {
        search.places.clear();
        search.place("it", format!("before {text} after"));
        assert!(!search.found().is_empty(), "{text}");
    }
    search.places.clear();
    search.place("it", [b"before", &search.secrets[0].1.clone()[..]].concat());
    assert_eq!(search.found(), ["it as itself in it"]);
}
