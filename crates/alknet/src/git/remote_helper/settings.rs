//! What the user has set for git.

use std::{
    env,
    process::{Child, Command, Stdio},
};

use alknet_git::Service;
use clap::ValueEnum as _;

use crate::{connect::Via, failure::Failure};

/// What carries the connection; it counts more than git's setting.
const VIA: &str = "ALKNET_VIA";
/// git's setting of the same.
const VIA_KEY: &str = "alknet.via";
/// Which version of its protocol git would like.
const VERSION_KEY: &str = "protocol.version";
/// What git itself takes where nothing is set.
const VERSION: u8 = 2;

/// What counts for an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) via: Via,
    version: u8,
}

impl Settings {
    /// The version that git expects of a service: what is newer than 1 exists for fetches
    /// alone.
    pub(super) fn version_of(self, service: Service) -> u8 {
        match service {
            Service::UploadPack => self.version,
            Service::ReceivePack if self.version == 1 => 1,
            Service::ReceivePack | Service::UploadArchive => 0,
        }
    }

    /// Reads the variable and what `git config` has printed: a key and a value on each line.
    fn read(variable: Option<&str>, config: &str) -> Result<Self, Failure> {
        // What comes last counts.
        let setting = |key: &str| {
            let lines = config.lines().rev().filter_map(|line| line.split_once(' '));
            lines.into_iter().find(|(name, _)| *name == key).map(|(_, value)| value.trim())
        };
        let via = variable.filter(|text| !text.is_empty());
        let set = || setting(VIA_KEY).map(|text| (VIA_KEY, text));
        let via = match via.map(|text| (VIA, text)).or_else(set) {
            Some((origin, text)) => Via::from_str(text, true).map_err(|_| unknown(origin, text))?,
            None => Via::Auto,
        };
        let version = setting(VERSION_KEY).and_then(|text| text.parse().ok()).unwrap_or(VERSION);
        Ok(Self { via, version })
    }
}

fn unknown(origin: &str, text: &str) -> Failure {
    let ways = Via::value_variants().iter().map(ToString::to_string).collect::<Vec<_>>();
    Failure::usage(format!("{origin} is {text:?}, which is no transport"))
        .hint(format!("there are {}", ways.join(", ")))
}

/// git's settings on their way here: it alone knows where they all may be.
#[derive(Debug)]
pub(super) struct Ask(Option<Child>);

impl Ask {
    /// Asks the git that has started this process.
    pub(super) fn git() -> Self {
        let pattern = r"^(alknet\.via|protocol\.version)$";
        let mut git = Command::new("git");
        git.args(["config", "--get-regexp", pattern]);
        git.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Without an answer things are as if nothing were set.
        Self(git.spawn().ok())
    }

    /// Waits for the answer.
    pub(super) fn answered(self) -> Result<Settings, Failure> {
        let output = self.0.and_then(|git| git.wait_with_output().ok());
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let variable = env::var(VIA).ok();
        Settings::read(variable.as_deref(), &text.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variable: Option<&str>, config: &str) -> Settings {
        Settings::read(variable, config).unwrap()
    }

    #[test]
    fn the_variable_counts_most_and_then_the_last_line() {
        let config = "alknet.via tls\nprotocol.version 1\nalknet.via websocket\n";
        assert_eq!(read(Some("quic"), config), Settings { via: Via::Quic, version: 1 });
        assert_eq!(read(None, config), Settings { via: Via::Websocket, version: 1 });
        assert_eq!(read(Some(""), "protocol.version x"), Settings { via: Via::Auto, version: 2 });
        assert!(Settings::read(Some("pigeon"), "").is_err());
        assert!(Settings::read(None, "alknet.via pigeon").is_err());
    }

    #[test]
    fn pushes_know_no_version_after_the_first() {
        for (version, push) in [(0, 0), (1, 1), (2, 0)] {
            let settings = Settings { via: Via::Auto, version };
            assert_eq!(settings.version_of(Service::UploadPack), version);
            assert_eq!(settings.version_of(Service::ReceivePack), push);
            assert_eq!(settings.version_of(Service::UploadArchive), 0);
        }
    }
}
