//! Which of OpenSSH's regression tests (9.2) apply to the server, and what comes of them.
//! `docs/openssh-tests.md` is this table.

/// What is known of a test.
pub(super) enum Verdict {
    /// It has to pass, with sshd and with ours.
    Pass,
    /// It does not always pass, and why.
    Partly(&'static str),
    /// It is not about what a server of ours does, and why.
    NotApplicable(&'static str),
}

use Verdict::{NotApplicable as No, Partly, Pass};

const KEY_FILES: &str = "of ssh-keygen and its files: no server takes part";
const PROCESSES: &str = "of sshd's processes and signals: `alknet reload` has tests of its own";
const CONFIGURATION: &str = "of the syntax of ssh_config and sshd_config";
const COMMANDS: &str = "helper programs that sshd asks for keys and principals";

/// What does not pass with sshd here, and why.
pub(super) const NOT_WITH_SSHD: &[(&str, &str)] = &[
    ("sshfp-connect", "skipped: it needs a DNS zone of its own"),
    ("agent-getpeereid", "skipped where root runs it"),
    ("agent-ptrace", "skipped where root runs it"),
    ("hostbased", "skipped: it needs a machine that is set up for it"),
    (
        "hostkey-agent",
        "fails: it wants certificates of all types that ssh knows, and ssh lists fewer types of \
         keys to it in these runs",
    ),
];

/// Tests with ports of their own, some the same: one at a time.
pub(super) const FIXED_PORTS: &[&str] =
    &["forwarding", "forward-control", "multiplex", "cfgmatch", "cfgmatchlisten"];

/// What ssh is made to list instead in a test: the variable of the script, and its value.
pub(super) const LISTS: &[(&str, &str, &str)] = &[
    ("keyscan", "LIST_key_plain", "ssh-ed25519"),
    ("keytype", "LIST_key_plain", "ssh-ed25519"),
    ("knownhosts-command", "LIST_key_plain", "ssh-ed25519"),
    ("integrity", "LIST_mac", ""),
];

pub(super) const TESTS: &[(&str, Verdict)] = &[
    ("connect", Pass),
    ("proxy-connect", Pass),
    ("sshfp-connect", No("of ssh and the DNS")),
    ("connect-privsep", No("of the separation of sshd's privileges")),
    ("connect-uri", Pass),
    ("proto-version", Pass),
    ("proto-mismatch", Pass),
    ("exit-status", Pass),
    ("exit-status-signal", Pass),
    ("envpass", Pass),
    ("transfer", Pass),
    ("banner", Pass),
    (
        "rekey",
        Partly(
            "one part fails now and then: the server looks whether a key has encrypted enough \
             when it has written all that is at hand, and of the test's 474 KiB that may be \
             everything; crates/alknet-ssh/tests/ssh/openssh.rs has a test with more",
        ),
    ),
    (
        "dhgex",
        No("Diffie-Hellman over finite fields is not offered, so that nothing is left of the test"),
    ),
    ("stderr-data", Pass),
    ("stderr-after-eof", Pass),
    ("broken-pipe", Pass),
    ("try-ciphers", Pass),
    ("yes-head", Pass),
    ("login-timeout", Pass),
    ("agent", Pass),
    ("agent-getpeereid", No("of ssh-agent")),
    ("agent-timeout", Pass),
    ("agent-ptrace", No("of ssh-agent")),
    ("agent-subprocess", Pass),
    ("keyscan", Pass),
    ("keygen-change", No(KEY_FILES)),
    ("keygen-comment", No(KEY_FILES)),
    ("keygen-convert", No(KEY_FILES)),
    ("keygen-knownhosts", No(KEY_FILES)),
    ("keygen-moduli", No(KEY_FILES)),
    ("keygen-sshfp", No(KEY_FILES)),
    (
        "key-options",
        No(
            "options of authorized_keys (command, from, no-pty, environment, expiry-time): a certificate has those of them that there are here, and crates/alknet-ssh/tests/ssh/certificates.rs tests them",
        ),
    ),
    ("scp", Pass),
    ("scp3", Pass),
    ("scp-uri", Pass),
    ("sftp", Pass),
    ("sftp-chroot", Pass),
    ("sftp-cmds", Pass),
    ("sftp-badcmds", Pass),
    ("sftp-batch", Pass),
    ("sftp-glob", Pass),
    ("sftp-perm", Pass),
    ("sftp-uri", Pass),
    ("reconfigure", No(PROCESSES)),
    ("dynamic-forward", Pass),
    ("forwarding", Pass),
    ("multiplex", Pass),
    ("reexec", No(PROCESSES)),
    ("brokenkeys", Pass),
    ("sshcfgparse", No(CONFIGURATION)),
    ("cfgparse", No(CONFIGURATION)),
    ("cfgmatch", No(CONFIGURATION)),
    ("cfgmatchlisten", No(CONFIGURATION)),
    ("percent", Pass),
    ("addrmatch", No(CONFIGURATION)),
    ("localcommand", Pass),
    (
        "forcecommand",
        No(
            "commands forced by authorized_keys and by ForceCommand: here a certificate forces one, and crates/alknet-ssh/tests/ssh/certificates.rs tests it",
        ),
    ),
    ("portnum", Pass),
    ("keytype", Pass),
    ("kextype", Pass),
    (
        "cert-hostkey",
        No("host certificates by authorities of the test: here the node's id is the authority"),
    ),
    (
        "cert-userkey",
        No(
            "takes certificates without principals for good, which are refused here, and forces commands by files of principals; crates/alknet-ssh/tests/ssh/certificates.rs tests certificates",
        ),
    ),
    ("host-expand", Pass),
    ("keys-command", No(COMMANDS)),
    ("forward-control", Pass),
    ("integrity", Pass),
    ("krl", No(KEY_FILES)),
    ("multipubkey", No("settings of sshd: several keys for one login (AuthenticationMethods)")),
    (
        "limit-keytype",
        No("settings of sshd (PubkeyAcceptedAlgorithms, Match): here the types of keys are fixed"),
    ),
    ("hostkey-agent", No("a setting of sshd: host keys that an agent has")),
    (
        "hostkey-rotate",
        No(
            "several host keys, one of them new: here there is one, which the node's id vouches for",
        ),
    ),
    ("principals-command", No(COMMANDS)),
    ("cert-file", Pass),
    ("cfginclude", No(CONFIGURATION)),
    ("servcfginclude", No(CONFIGURATION)),
    ("allow-deny-users", No("settings of sshd: here accounts are mapped to identities")),
    ("authinfo", No("ExposeAuthInfo of sshd")),
    ("sshsig", No(KEY_FILES)),
    ("knownhosts", Pass),
    ("knownhosts-command", Pass),
    (
        "agent-restrict",
        No("reads which key was used by ExposeAuthInfo and a command of authorized_keys"),
    ),
    ("hostbased", No("logins by host, which are not offered")),
    ("channel-timeout", No("a setting of sshd (ChannelTimeout)")),
    ("connection-timeout", No("a setting of sshd (UnusedConnectionTimeout)")),
];

/// The table as a document.
#[cfg(test)]
fn document() -> String {
    let mut text = String::from(
        "# OpenSSH's regression tests\n\n\
         OpenSSH's own tests (Debian: openssh-tests, 9.2) against the SSH server and\n\
         `alknet sftp-server`: `cargo xtask conformance openssh`. It runs each that applies twice,\n\
         with Debian's sshd and sftp-server and then with ours, and fails unless it passes both\n\
         times: what fails or is skipped with sshd says nothing here. `cargo xtask conformance\n\
         openssh --calibrate` runs all of them with sshd alone. Both columns are what those runs\n\
         have to come to.\n\n\
         The tests write sshd_config and authorized_keys. `crates/alknet-ssh/examples/regress_sshd`\n\
         translates what the SSH server has as well and refuses the rest, so that nothing passes for\n\
         want of a setting. `ForceCommand internal-sftp` is a grant of SFTP alone there, and\n\
         `ChrootDirectory` with it is `alknet sftp-server --root`. ssh knows in these runs of no\n\
         algorithm that the server does not offer.\n\n\
         | test | sshd | alknet | |\n|---|---|---|---|\n",
    );
    for (name, verdict) in TESTS {
        let with_sshd = NOT_WITH_SSHD.iter().find(|(known, _)| known == name);
        let sshd = with_sshd.map_or("passes", |(_, why)| *why);
        let lists = LISTS.iter().find(|(test, ..)| test == name);
        let (result, why) = match (verdict, lists) {
            (Pass, None) => ("passes", String::new()),
            (Pass, Some((_, _, ""))) => ("passes", "with ciphers that authenticate".into()),
            (Pass, Some((_, _, list))) => ("passes", format!("with `{list}` alone")),
            (Partly(why), _) => ("not always", (*why).into()),
            (No(why), _) => ("not applicable", (*why).into()),
        };
        text.push_str(&format!("| `{name}` | {sshd} | {result} | {why} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

    use super::*;

    #[test]
    fn the_document_is_this_table() {
        let document = include_str!("../../../../docs/openssh-tests.md");
        assert_eq!(document, super::document(), "write this into docs/openssh-tests.md");
    }

    #[test]
    fn what_does_not_pass_with_sshd_counts_for_nothing() {
        for (name, _) in NOT_WITH_SSHD {
            let found = TESTS.iter().find(|(known, _)| known == name);
            assert!(matches!(found, Some((_, No(_)))), "{name}");
        }
    }

    #[test]
    fn the_tests_of_sftp_pass() {
        let sftp = TESTS.iter().filter(|(name, _)| name.starts_with("sftp"));
        assert!(sftp.clone().count() >= 8 && sftp.clone().all(|(_, it)| matches!(it, Pass)));
    }
}
