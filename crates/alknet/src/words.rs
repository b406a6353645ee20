//! Names, scopes and actions as people write them.

use alknet_core::{InvalidScope, SERVICE_PREFIX, Scope, Scopes};

/// The longest principal, in characters.
const MAX_PRINCIPAL: usize = 256;

/// `ssh:shell` as it stands, and a service by its long name: `alknet/ssh:shell`.
pub(crate) fn parse_scope(text: &str) -> Result<Scope, InvalidScope> {
    short(text.trim()).parse()
}

/// Scopes with commas between them, and one at least.
pub(crate) fn parse_scopes(text: &str) -> Result<Scopes, String> {
    let scope = |text: &str| parse_scope(text).map_err(|error| format!("{text:?}: {error}"));
    text.split(',').map(scope).collect()
}

/// What somebody may want to do, written as a scope is.
pub(crate) fn parse_action(text: &str) -> Result<String, String> {
    match short(text).parse::<Scope>() {
        Ok(_) => Ok(short(text).into()),
        Err(error) => Err(error.to_string()),
    }
}

fn short(text: &str) -> &str {
    text.strip_prefix(SERVICE_PREFIX).unwrap_or(text)
}

/// What people call a peer or a token.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_alphanumeric() || "-_.@ ".contains(c);
    if text.trim() != text || text.is_empty() || text.chars().count() > 64 {
        return Err("a name has 1 to 64 characters and no space at its ends".into());
    }
    match text.chars().find(|c| !plain(*c)) {
        Some(bad) => Err(format!("a name has no {bad:?}")),
        None => Ok(text.into()),
    }
}

/// What a certificate names.
pub(crate) fn parse_principal(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.chars().count() <= MAX_PRINCIPAL;
    if fits && !text.chars().any(char::is_control) {
        return Ok(text.into());
    }
    Err(format!(
        "a principal has 1 to {MAX_PRINCIPAL} characters, none of them a control character"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_have_short_and_long_names() {
        let scopes = parse_scopes("git:read:notes, alknet/ssh:shell").unwrap();
        assert_eq!(scopes.to_string(), "git:read:notes,ssh:shell");
        assert_eq!(parse_scopes("*").unwrap(), Scopes::all());
        assert!(parse_scopes("").is_err() && parse_scopes("ssh,").is_err());
        assert_eq!(parse_scopes("ssh,a b").unwrap_err(), "\"a b\": a scope has no ' '");
        assert_eq!(parse_action("alknet/ssh:shell").unwrap(), "ssh:shell");
        assert!(parse_action("ssh:").is_err());
    }

    #[test]
    fn names_are_checked() {
        assert!(parse_name("alice@laptop").is_ok());
        for bad in ["", " a", "a\n", "a\u{1b}[0m", &"x".repeat(65)] {
            assert!(parse_name(bad).is_err(), "{bad:?}");
        }
        assert!(parse_principal("host/a:b").is_ok());
        for bad in ["", "a\u{1b}[0m", &"x".repeat(257)] {
            assert!(parse_principal(bad).is_err(), "{bad:?}");
        }
    }
}
