//! What is understood of sshd_config(5).

use std::{fs, io, path::Path, path::PathBuf, time::Duration};

use alknet_host::network::{Rule, Settings};
use alknet_ssh::KeyExchange;
use russh::keys::PrivateKey;

use crate::Result;

/// Settings without a meaning here: what they would change is so in any case, or is of no
/// account to the tests that set them.
const IGNORED: &[&str] = &[
    "strictmodes",
    "addressfamily",
    "listenaddress",
    "loglevel",
    "usepam",
    "securitykeyprovider",
    "maxstartups",
    "pubkeyauthentication",
    "challengeresponseauthentication",
];
/// What ssh-audit has no warning for.
const POST_QUANTUM: &str = "mlkem768x25519-sha256";
/// What the server offers in any case. Which of it is used the tests tell their client as well.
const OFFERED: &[(&str, &[&str])] = &[
    ("kexalgorithms", &[POST_QUANTUM, "curve25519-sha256", "curve25519-sha256@libssh.org"]),
    (
        "ciphers",
        &["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"],
    ),
    // None is used: the ciphers authenticate by themselves.
    ("macs", &["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"]),
    ("hostkeyalgorithms", &["ssh-ed25519"]),
];
/// sshd's own SFTP server.
const INTERNAL_SFTP: &str = "internal-sftp";
/// Everything that a client could ask for: special addresses are named, as they have to be.
const ANYWHERE: &[&str] = &["localhost:*", "127.0.0.0/8:*", "[::1/128]:*", "*:*"];

/// The configuration.
#[derive(Debug, Default)]
pub(crate) struct Config {
    folder: PathBuf,
    pub(crate) port: u16,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) authorized_keys: String,
    pub(crate) subsystems: Vec<(String, String)>,
    pub(crate) login_timeout: Duration,
    pub(crate) revoked_keys: Option<PathBuf>,
    pub(crate) trusted_authorities: Option<PathBuf>,
    pub(crate) key_exchange: KeyExchange,
    pub(crate) accept_env: Vec<String>,
    pub(crate) set_env: Vec<(String, String)>,
    pub(crate) banner: Option<String>,
    /// After how many bytes and seconds keys are exchanged anew; 0 is the server's own choice.
    pub(crate) rekey: (u64, u64),
    /// Which types of keys count, if not all do.
    pub(crate) key_types: Option<Vec<String>>,
    /// Whoever logs in gets SFTP and nothing else, with these arguments of the server.
    pub(crate) sftp_alone: Option<Vec<String>>,
    chroot: Option<String>,
    host_keys: Vec<PathBuf>,
    tcp_forwarding: Option<String>,
    permit_open: Vec<String>,
    permit_listen: Vec<String>,
}

impl Config {
    /// Reads a file, and what the command line says first: of most settings the first value
    /// counts.
    pub(crate) fn read(path: &Path, first: &[String]) -> Result<Self> {
        let text = fs::read_to_string(path)?;
        let folder = path.parent().unwrap_or(path).to_owned();
        let login_timeout = Duration::from_secs(120);
        let mut config = Self { folder, login_timeout, ..Self::default() };
        let mut seen = Vec::new();
        for line in first.iter().map(String::as_str).chain(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) =
                line.split_once(|c: char| c.is_whitespace() || c == '=').ok_or(line)?;
            let value = value.trim_start_matches(|c: char| c.is_whitespace() || c == '=').trim();
            let name = name.to_ascii_lowercase();
            let several = ["hostkey", "subsystem", "acceptenv"].contains(&name.as_str());
            if seen.contains(&name) && !several {
                continue;
            }
            config.set(&name, value).map_err(|why| format!("{name} {value}: {why}"))?;
            seen.push(name);
        }
        match (config.chroot.take(), &mut config.sftp_alone) {
            (None, _) => {}
            // The folder is all that there is, and a session begins there.
            (Some(folder), Some(arguments)) => *arguments = vec!["--root".into(), folder],
            (Some(_), None) => return Err("ChrootDirectory is known for internal-sftp".into()),
        }
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let words = || value.split_whitespace().map(str::to_owned).collect();
        match name {
            "port" => self.port = value.parse()?,
            "pidfile" => self.pid_file = Some(value.into()),
            "authorizedkeysfile" => self.authorized_keys = value.into(),
            "hostkey" => self.host_keys.push(value.into()),
            "subsystem" => {
                let (name, line) = value.split_once(char::is_whitespace).ok_or("no command")?;
                self.subsystems.push((name.into(), line.trim().into()));
            }
            "logingracetime" => {
                let seconds = value.strip_suffix('s').unwrap_or(value).parse()?;
                self.login_timeout = Duration::from_secs(seconds);
            }
            "revokedkeys" => self.revoked_keys = Some(value.into()),
            "trustedusercakeys" => self.trusted_authorities = Some(value.into()),
            "allowtcpforwarding" => self.tcp_forwarding = Some(value.into()),
            "permitopen" => self.permit_open = words(),
            "permitlisten" => self.permit_listen = words(),
            "acceptenv" => self.accept_env.push(value.into()),
            "setenv" => {
                for word in value.split_whitespace() {
                    let (name, value) = word.split_once('=').ok_or("no value")?;
                    if !self.set_env.iter().any(|(known, _)| known == name) {
                        self.set_env.push((name.into(), value.trim_matches('\'').into()));
                    }
                }
            }
            "banner" => {
                self.banner = match fs::read_to_string(value) {
                    // As sshd has it, there is none then.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    text => Some(text?),
                };
            }
            "rekeylimit" => {
                let (bytes, time) = value.split_once(' ').unwrap_or((value, "0"));
                let bytes = if bytes == "default" { "0" } else { bytes };
                self.rekey = (scaled(bytes, SIZES)?, scaled(time, TIMES)?);
            }
            "pubkeyacceptedalgorithms" => {
                self.key_types = Some(value.split(',').map(str::to_owned).collect());
            }
            "forcecommand" => {
                let mut words = value.split_whitespace().map(str::to_owned);
                if words.next().as_deref() != Some(INTERNAL_SFTP) {
                    return Err(format!("only {INTERNAL_SFTP} is known").into());
                }
                self.sftp_alone = Some(words.collect());
            }
            "chrootdirectory" => self.chroot = Some(value.into()),
            "kexalgorithms" if value == POST_QUANTUM => {
                self.key_exchange = KeyExchange::PostQuantum;
            }
            _ if is_offered(name, value) => {}
            _ if IGNORED.contains(&name) => {}
            _ => return Err("not known".into()),
        }
        Ok(())
    }

    /// What serves a subsystem: a command line.
    pub(crate) fn subsystem(&self, line: &str) -> String {
        let arguments = self.sftp_alone.iter().flatten();
        arguments.fold(line.to_owned(), |line, argument| format!("{line} {argument}"))
    }

    /// The seed of the one host key that is Ed25519.
    pub(crate) fn host_key(&self) -> Result<[u8; 32]> {
        for path in &self.host_keys {
            let key = PrivateKey::from_openssh(fs::read_to_string(path)?)?;
            if let Some(pair) = key.key_data().ed25519() {
                return Ok(pair.private.to_bytes());
            }
        }
        Err("no host key is Ed25519".into())
    }

    /// What may be had of the network.
    pub(crate) fn network(&self) -> Result<Settings> {
        let allowed = self.tcp_forwarding.as_deref().unwrap_or("yes");
        let places = |on: bool, permitted: &[String]| match (on, permitted) {
            (false, _) => Vec::new(),
            (true, []) => ANYWHERE.iter().map(|place| (*place).to_owned()).collect(),
            (true, permitted) => permitted.to_vec(),
        };
        let mut connect = places(["yes", "local"].contains(&allowed), &self.permit_open);
        let mut listen = places(["yes", "remote"].contains(&allowed), &self.permit_listen);
        // The sockets of the tests are beside their configuration.
        for places in [&mut connect, &mut listen] {
            places.push(format!("{}/*", self.folder.display()));
        }
        let parsed = |texts: Vec<String>| texts.iter().map(|text| Ok(text.parse()?)).collect();
        let (connect, listen): (Result<_>, Result<_>) = (parsed(connect), parsed(listen));
        let rule = Rule { connect: connect?, listen: listen?, ..Rule::default() };
        Ok(Settings { rules: vec![rule], ..Settings::default() })
    }
}

const SIZES: &[(char, u64)] = &[('k', 1 << 10), ('m', 1 << 20), ('g', 1 << 30)];
const TIMES: &[(char, u64)] =
    &[('s', 1), ('m', 60), ('h', 60 * 60), ('d', 24 * 60 * 60), ('w', 7 * 24 * 60 * 60)];

/// A number with a unit.
fn scaled(text: &str, units: &[(char, u64)]) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let unit = units.iter().find(|(unit, _)| lower.ends_with(*unit));
    let number: u64 = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse()?;
    Ok(number * unit.map_or(1, |(_, factor)| *factor))
}

/// Whether a setting only leaves out some of what is offered.
fn is_offered(name: &str, value: &str) -> bool {
    let known = OFFERED.iter().find(|(known, _)| *known == name);
    known.is_some_and(|(_, offered)| value.split(',').all(|it| offered.contains(&it)))
}
