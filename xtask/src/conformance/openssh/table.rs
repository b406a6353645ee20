//! Which of OpenSSH's regression tests (9.2) apply to the server, and what came of them. `docs/openssh-tests.md` is this table.

/// What is known of a test.
pub(super) enum Verdict {
    /// It has to pass.
    Pass,
    /// It fails, or parts of it do, and why.
    Fails(&'static str),
    /// It is not about what a server of ours does, and why.
    NotApplicable(&'static str),
}

use Verdict::{Fails, NotApplicable as No, Pass};

const OPTIONS: &str = "options in authorized_keys and settings of sshd: here grants, peers and \
                       certificates say who may do what";
const HOST_KEYS: &str = "the host key is Ed25519 alone, with a certificate of the node's";
const KEY_FILES: &str = "of ssh-keygen and its files: no server takes part";
const PROCESSES: &str = "of sshd's processes and signals: `alknet reload` has tests of its own";
const CONFIGURATION: &str = "of the syntax of ssh_config and sshd_config";
const COMMANDS: &str = "helper programs that sshd asks for keys and principals";

pub(super) const TESTS: &[(&str, Verdict)] = &[
    ("connect", Pass),
    (
        "proxy-connect",
        Fails("its last part logs in as USER:style, of BSD authentication; the rest passes"),
    ),
    ("sshfp-connect", No("needs a DNS zone of its own, and is skipped with sshd as well")),
    ("connect-privsep", No("of the separation of sshd's privileges")),
    ("connect-uri", Pass),
    ("proto-version", Pass),
    ("proto-mismatch", Pass),
    ("exit-status", Pass),
    ("exit-status-signal", Pass),
    (
        "envpass",
        Fails("its last part has the server set variables (SetEnv); those from the client pass"),
    ),
    ("transfer", Pass),
    ("banner", No("there is no banner before a login")),
    (
        "rekey",
        Fails(
            "it sets the server's limits, which are fixed, and reads them back by sshd -T; \
               rekeying by the client passes",
        ),
    ),
    ("dhgex", No("Diffie-Hellman over finite fields is not offered")),
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
    ("keyscan", No(HOST_KEYS)),
    ("keygen-change", No(KEY_FILES)),
    ("keygen-comment", No(KEY_FILES)),
    ("keygen-convert", No(KEY_FILES)),
    ("keygen-knownhosts", No(KEY_FILES)),
    ("keygen-moduli", No(KEY_FILES)),
    ("keygen-sshfp", No(KEY_FILES)),
    ("key-options", No(OPTIONS)),
    ("scp", Pass),
    ("scp3", Pass),
    ("scp-uri", Pass),
    ("sftp", Pass),
    ("sftp-chroot", No("ChrootDirectory of sshd: exports have tests of their own")),
    ("sftp-cmds", Pass),
    ("sftp-badcmds", Pass),
    ("sftp-batch", Pass),
    ("sftp-glob", Pass),
    ("sftp-perm", Pass),
    ("sftp-uri", No("ForceCommand of sshd_config with sshd's internal SFTP server")),
    ("reconfigure", No(PROCESSES)),
    ("dynamic-forward", Pass),
    ("forwarding", Pass),
    (
        "multiplex",
        Fails(
            "two parts want sshd's words for a bad greeting (\"Invalid SSH identification \
               string.\"), where this server waits for a greeting and closes; a whole run was \
               not seen to end within 300 s",
        ),
    ),
    ("reexec", No(PROCESSES)),
    ("brokenkeys", Pass),
    ("sshcfgparse", No(CONFIGURATION)),
    ("cfgparse", No(CONFIGURATION)),
    ("cfgmatch", No(CONFIGURATION)),
    ("cfgmatchlisten", No(CONFIGURATION)),
    ("percent", Pass),
    ("addrmatch", No(CONFIGURATION)),
    ("localcommand", Pass),
    ("forcecommand", No(OPTIONS)),
    ("portnum", Pass),
    ("keytype", No(HOST_KEYS)),
    ("kextype", Pass),
    ("cert-hostkey", No(HOST_KEYS)),
    ("cert-userkey", No("lists of principals and authorities in sshd's files")),
    ("host-expand", Pass),
    ("keys-command", No(COMMANDS)),
    ("forward-control", Pass),
    ("integrity", No("of ciphers without authentication, which are not offered")),
    ("krl", No(KEY_FILES)),
    ("multipubkey", No("several keys for one login (AuthenticationMethods)")),
    ("limit-keytype", No(OPTIONS)),
    ("hostkey-agent", No(HOST_KEYS)),
    ("hostkey-rotate", No(HOST_KEYS)),
    ("principals-command", No(COMMANDS)),
    ("cert-file", Pass),
    ("cfginclude", No(CONFIGURATION)),
    ("servcfginclude", No(CONFIGURATION)),
    ("allow-deny-users", No(OPTIONS)),
    ("authinfo", No("ExposeAuthInfo of sshd")),
    ("sshsig", No(KEY_FILES)),
    ("knownhosts", Pass),
    ("knownhosts-command", No(HOST_KEYS)),
    ("agent-restrict", No(HOST_KEYS)),
    ("hostbased", No("logins by host, which are not offered; skipped with sshd as well")),
    ("channel-timeout", No(OPTIONS)),
    ("connection-timeout", No(OPTIONS)),
];

/// The table as a document.
#[cfg(test)]
fn document() -> String {
    let mut text = String::from(
        "# OpenSSH's regression tests\n\n\
         OpenSSH's own tests (Debian: openssh-tests, 9.2) against the SSH server and\n\
         `alknet sftp-server`: `cargo xtask conformance openssh`. It runs those that are\n\
         listed as passed, several at a time, and fails if one of them fails or is skipped;\n\
         that one is run with sshd as well then, to tell whose fault it is. ssh knows in\n\
         these runs of no algorithm that the server does not offer.\n\n\
         | test | result | |\n|---|---|---|\n",
    );
    for (name, verdict) in TESTS {
        let (result, why) = match verdict {
            Pass => ("passed", ""),
            Fails(why) => ("failed", *why),
            No(why) => ("not applicable", *why),
        };
        text.push_str(&format!("| `{name}` | {result} | {why} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

    #[test]
    fn the_document_is_this_table() {
        let document = include_str!("../../../../docs/openssh-tests.md");
        assert_eq!(document, super::document(), "write this into docs/openssh-tests.md");
    }
}
