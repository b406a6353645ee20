//! Signed pushes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How git shows that a signature is good, that it may be anybody's, and that the nonce is one
/// that it gave for this repository a short while ago. It tells of any that it ever gave (`SLOP`).
const GOOD: &str = "G";
const UNKNOWN: &str = "U";
const FRESH: &str = "OK";

/// How a push was signed (`git push --signed`), as git tells its hooks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct Certificate {
    /// The blob that holds it (`GIT_PUSH_CERT`).
    pub id: String,
    /// Who has signed, where git could find out.
    pub signer: String,
    /// With which key.
    pub key: String,
    /// What git makes of the signature: the letters of `%G?` in `git log`.
    pub status: String,
    /// The nonce that was signed.
    pub nonce: String,
    /// What git makes of that: `OK`, `SLOP`, `BAD`, `UNSOLICITED` or `MISSING`.
    pub nonce_status: String,
    /// How many seconds too old it is.
    pub nonce_slop: String,
}

impl Certificate {
    /// The variables of a hook that tell of it.
    pub fn variables(&self) -> [(&'static str, &str); 7] {
        [
            ("GIT_PUSH_CERT", &self.id),
            ("GIT_PUSH_CERT_SIGNER", &self.signer),
            ("GIT_PUSH_CERT_KEY", &self.key),
            ("GIT_PUSH_CERT_STATUS", &self.status),
            ("GIT_PUSH_CERT_NONCE", &self.nonce),
            ("GIT_PUSH_CERT_NONCE_STATUS", &self.nonce_status),
            ("GIT_PUSH_CERT_NONCE_SLOP", &self.nonce_slop),
        ]
    }

    /// That of a hook with these variables, if there is one.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let get = |name| variable(name).unwrap_or_default();
        let id = variable("GIT_PUSH_CERT").filter(|id| !id.is_empty())?;
        let signer = get("GIT_PUSH_CERT_SIGNER");
        // A signature by an SSH key of nobody's is good to git, which only leaves out whose it is.
        let status = match get("GIT_PUSH_CERT_STATUS") {
            good if good == GOOD && signer.is_empty() => UNKNOWN.to_owned(),
            other => other,
        };
        Some(Self {
            id,
            signer,
            key: get("GIT_PUSH_CERT_KEY"),
            status,
            nonce: get("GIT_PUSH_CERT_NONCE"),
            nonce_status: get("GIT_PUSH_CERT_NONCE_STATUS"),
            nonce_slop: get("GIT_PUSH_CERT_NONCE_SLOP"),
        })
    }

    /// Whether somebody of the allowed signers has signed this very push.
    pub fn is_verified(&self) -> bool {
        let signed = self.status == GOOD && !self.signer.is_empty();
        signed && self.nonce_status == FRESH
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { signer, key, status, nonce_status, .. } = self;
        match self.is_verified() {
            true => write!(f, "verified: {signer} ({key})"),
            false => write!(f, "unverified: signature {status}, nonce {nonce_status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_signature_of_a_fresh_nonce_is_verified() {
        let certificate = |status: &str, nonce_status: &str| Certificate {
            status: status.into(),
            nonce_status: nonce_status.into(),
            signer: "anna".into(),
            ..Certificate::default()
        };
        assert!(certificate("G", "OK").is_verified());
        for (status, nonce) in
            [("G", "BAD"), ("G", "SLOP"), ("U", "OK"), ("B", "OK"), ("N", "OK"), ("", "")]
        {
            assert!(!certificate(status, nonce).is_verified(), "{status} {nonce}");
            assert!(certificate(status, nonce).to_string().starts_with("unverified"));
        }
        assert!(!Certificate { signer: String::new(), ..certificate("G", "OK") }.is_verified());
    }

    #[test]
    fn a_signature_of_nobody_s_is_told_from_a_good_one() {
        let status = |signer: &'static str| {
            let variable = move |name: &str| {
                Some(match name {
                    "GIT_PUSH_CERT_STATUS" => "G".to_owned(),
                    "GIT_PUSH_CERT_SIGNER" => signer.to_owned(),
                    _ => "OK".to_owned(),
                })
            };
            Certificate::from_variables(variable).unwrap()
        };
        assert_eq!((status("anna").status.as_str(), status("anna").is_verified()), ("G", true));
        assert_eq!((status("").status.as_str(), status("").is_verified()), ("U", false));
    }

    #[test]
    fn the_variables_of_hooks_are_read_and_written() {
        let all = |name: &str| name.strip_prefix("GIT_PUSH_").map(str::to_lowercase);
        let certificate = Certificate::from_variables(all).unwrap();
        for (name, value) in certificate.variables() {
            assert_eq!(all(name).as_deref(), Some(value));
        }
        assert_eq!(Certificate::from_variables(|_| None), None);
    }
}
