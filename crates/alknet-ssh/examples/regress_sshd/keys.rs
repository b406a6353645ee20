//! What is understood of authorized_keys (sshd(8)): who has a key, with which grants.

use std::fs;

use alknet_core::{Credential, Identity, Scopes};
use alknet_ssh::UserKey;
use alknet_testing::identities::Identities;

use crate::{Result, config::Config};

/// What somebody with a plain line may do.
const EVERYTHING: [&str; 6] =
    ["ssh", "subsystem", "forward:agent", "forward:connect", "forward:listen", "forward:udp"];

/// Whoever has a key in the user's file, or a certificate by an authority in it.
pub(crate) fn identities(config: &Config, user: &str) -> Result<Identities> {
    let identities = Identities::new();
    let path = config.authorized_keys.replace("%u", user);
    let text = fs::read_to_string(path).unwrap_or_default();
    for line in text.lines() {
        // A line that is not understood, and whose key is of no supported type, admits
        // nobody.
        let Some((options, key)) = split(line, config) else { continue };
        let Some(grant) = Grant::parse(&options, user) else { continue };
        let credential = Credential::Key(key.fingerprint());
        let scopes = if config.sftp_alone.is_some() { sftp() } else { grant.scopes() };
        let identity = Identity::new(user, user, scopes, credential);
        match grant.principals {
            None => identities.add_key(key.fingerprint(), identity),
            Some(principals) => {
                for principal in principals {
                    trust(&identities, &key, &principal, &identity);
                }
            }
        }
    }
    if let Some(path) = &config.trusted_authorities {
        for line in fs::read_to_string(path)?.lines() {
            let key = UserKey::parse(line)?;
            let everything = Scopes::from_iter(EVERYTHING);
            let scopes = if config.sftp_alone.is_some() { sftp() } else { everything };
            let credential = Credential::Key(key.fingerprint());
            trust(&identities, &key, user, &Identity::new(user, user, scopes, credential));
        }
    }
    Ok(identities)
}

/// Whoever may have SFTP alone has a grant of that and of nothing else.
fn sftp() -> Scopes {
    Scopes::from_iter(["subsystem"])
}

fn trust(identities: &Identities, authority: &UserKey, principal: &str, identity: &Identity) {
    let authority = authority.fingerprint();
    let principal = principal.to_owned();
    let credential = Credential::Authority { key: authority, principal: principal.clone() };
    identities.add_authority(authority, &principal, Identity { credential, ..identity.clone() });
}

/// The key of a text, if its type counts.
fn key(text: &str, config: &Config) -> Option<UserKey> {
    let key = UserKey::parse(text).ok()?;
    let kind = text.split_whitespace().next()?;
    let counts = |types: &Vec<String>| types.iter().any(|it| it == kind);
    config.key_types.as_ref().is_none_or(counts).then_some(key)
}

/// The options of a line, and its key.
fn split(line: &str, config: &Config) -> Option<(Vec<String>, UserKey)> {
    if UserKey::parse(line).is_ok() {
        return Some((Vec::new(), key(line, config)?));
    }
    let (mut options, mut option, mut quoted) = (Vec::new(), String::new(), false);
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => options.push(std::mem::take(&mut option)),
            c if c.is_whitespace() && !quoted => {
                options.push(option);
                return Some((options, key(line.get(at..)?.trim(), config)?));
            }
            c => option.push(c),
        }
    }
    None
}

/// What the options of a line leave.
#[derive(Debug)]
struct Grant {
    forwarding: bool,
    agent: bool,
    open: Vec<String>,
    listen: Vec<String>,
    /// Of whom certificates by this key are, if it is an authority's.
    principals: Option<Vec<String>>,
}

impl Grant {
    /// `None`: an option has no meaning here, so that the line must not count.
    fn parse(options: &[String], user: &str) -> Option<Self> {
        let (open, listen) = (Vec::new(), Vec::new());
        let mut grant = Self { forwarding: true, agent: true, open, listen, principals: None };
        for option in options {
            match option.split_once('=').unwrap_or((option, "")) {
                ("no-port-forwarding", "") => grant.forwarding = false,
                ("port-forwarding", "") => grant.forwarding = true,
                ("no-agent-forwarding", "") => grant.agent = false,
                ("agent-forwarding", "") => grant.agent = true,
                ("restrict", "") => (grant.forwarding, grant.agent) = (false, false),
                ("permitopen", place) => grant.open.push(place.into()),
                ("permitlisten", place) => grant.listen.push(place.into()),
                ("cert-authority", "") => grant.principals = Some(vec![user.into()]),
                ("principals", list) => {
                    grant.principals = Some(list.split(',').map(str::to_owned).collect());
                }
                _ => return None,
            }
        }
        Some(grant)
    }

    fn scopes(&self) -> Scopes {
        let mut scopes = vec!["ssh".to_owned(), "subsystem".to_owned()];
        scopes.extend(self.agent.then(|| "forward:agent".into()));
        if self.forwarding {
            for (verb, places) in [("connect", &self.open), ("listen", &self.listen)] {
                match places.as_slice() {
                    [] => scopes.push(format!("forward:{verb}")),
                    some => scopes.extend(some.iter().map(|it| format!("forward:{verb}:{it}"))),
                }
            }
        }
        scopes.iter().map(String::as_str).collect()
    }
}
