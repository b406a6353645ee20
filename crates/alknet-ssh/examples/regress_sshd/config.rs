//! What is understood of sshd_config(5).

use std::{fs, path::Path, path::PathBuf, time::Duration};

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
            let Some((name, value)) = line.split_once(|c: char| c.is_whitespace()) else {
                continue;
            };
            let (name, value) = (name.to_ascii_lowercase(), value.trim());
            let several = ["hostkey", "subsystem", "acceptenv"].contains(&name.as_str());
            if name.starts_with('#') || (seen.contains(&name) && !several) {
                continue;
            }
            config.set(&name, value).map_err(|why| format!("{name} {value}: {why}"))?;
            seen.push(name);
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
            "kexalgorithms" if value == POST_QUANTUM => {
                self.key_exchange = KeyExchange::PostQuantum;
            }
            _ if IGNORED.contains(&name) => {}
            _ => return Err("not known".into()),
        }
        Ok(())
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
