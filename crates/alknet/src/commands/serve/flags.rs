//! Flags that come before the configuration.

use std::{net::SocketAddr, path::PathBuf};

use super::banner;
use crate::{
    config::{Accounts, AuthorizedKeys, Certificate, Config, Decoy, Mapped, Span},
    node::Settings,
};

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Flags {
    /// Where to listen, UDP and TCP; port 0 takes a free one [default: [::]:4433]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// A name by which clients reach the node; the first one stands in the links
    #[arg(long = "host", value_name = "NAME")]
    pub(super) hosts: Vec<String>,
    /// Offer HTTPS alone and hide every service in it
    #[arg(long)]
    cover: bool,
    /// What strangers see: 404, a folder, http://UPSTREAM, or redirect:URL
    #[arg(long, value_name = "WHAT")]
    decoy: Option<Decoy>,
    /// The certificate chain for browsers (PEM); without it a self-signed one is made
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Let the keys of an authorized_keys file use SSH [default FILE: ~/.ssh/authorized_keys]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    authorized_keys: Option<Option<PathBuf>>,
    /// Where the node runs as root: an account that a peer may use; PEER is a name, an id, or *
    /// for everybody
    #[arg(long = "account", value_name = "PEER=ACCOUNT")]
    accounts: Vec<Mapped>,
    /// How long a shutdown waits for sessions to end: 30s, 5m, or a number of seconds [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_drain)]
    drain: Option<Span>,
}

fn parse_drain(text: &str) -> Result<Span, String> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(Span::seconds(seconds.into())),
        Err(_) => text.parse().map_err(|error: crate::config::InvalidSpan| error.to_string()),
    }
}

impl Flags {
    /// A configuration with the flags in the place of its keys.
    pub(super) fn over(&self, config: Config) -> Config {
        let certificate = self.certificate.clone().zip(self.key.clone());
        let of_files =
            |(chain, key): (PathBuf, PathBuf)| Certificate { chain: chain.into(), key: key.into() };
        let authorized_keys = self.authorized_keys.clone().map(|file| match file {
            Some(file) => AuthorizedKeys::File(file.into()),
            None => AuthorizedKeys::Default(true),
        });
        Config {
            listen: self.listen.unwrap_or(config.listen),
            cover: self.cover || config.cover,
            decoy: self.decoy.clone().or(config.decoy),
            certificate: certificate.map(of_files).or(config.certificate),
            authorized_keys: authorized_keys.unwrap_or(config.authorized_keys),
            accounts: Accounts::of_flags(&self.accounts).unwrap_or(config.accounts),
            drain: self.drain.unwrap_or(config.drain),
            ..config
        }
    }

    /// Whether a flag stands in the place of a key.
    pub(super) fn hold(&self, key: &str) -> bool {
        match key {
            "listen" => self.listen.is_some(),
            "cover" => self.cover,
            "decoy" => self.decoy.is_some(),
            "certificate" => self.certificate.is_some(),
            "authorized_keys" => self.authorized_keys.is_some(),
            "accounts" => !self.accounts.is_empty(),
            "drain" => self.drain.is_some(),
            _ => false,
        }
    }

    /// What a node is told.
    pub(super) fn settings(&self, config: Config) -> Settings {
        Settings {
            config: self.over(config),
            names: certificate_names(&self.hosts),
            name: self.hosts.first().cloned().unwrap_or_else(banner::host_name),
        }
    }
}

/// Names for a self-signed certificate: no client checks them, but a page that shows the
/// certificate shows them.
fn certificate_names(hosts: &[String]) -> Vec<String> {
    if hosts.is_empty() { vec!["localhost".into()] } else { hosts.to_vec() }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn flags(args: &[&str]) -> Result<Flags, clap::Error> {
        let command = Flags::augment_args(clap::Command::new("serve").no_binary_name(true));
        Flags::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    /// Each flag changes the key that it says it holds, and no other.
    #[test]
    fn a_flag_stands_in_the_place_of_its_key() {
        let config = Config::default();
        for (args, key) in [
            (&["--listen", "127.0.0.1:1"][..], "listen"),
            (&["--cover"], "cover"),
            (&["--decoy", "/srv"], "decoy"),
            (&["--certificate", "a", "--key", "b"], "certificate"),
            (&["--authorized-keys"], "authorized_keys"),
            (&["--authorized-keys=file"], "authorized_keys"),
            (&["--account", "alice=www-data", "--account", "*=nobody"], "accounts"),
            (&["--drain", "5m"], "drain"),
            (&["--drain", "300"], "drain"),
        ] {
            let flags = flags(args).unwrap();
            let difference = flags.over(config.clone()).difference(&config, &config).unwrap();
            let changed = [difference.live, difference.fixed].concat();
            assert_eq!(changed, [key], "{args:?}");
            assert!(flags.hold(key) && !Flags::default().hold(key), "{args:?}");
        }
    }

    #[test]
    fn a_wrong_flag_is_refused_before_anything_happens() {
        for args in [
            &["--decoy", "https://secure.example"][..],
            &["--decoy", "redirect:no url"],
            &["--account", "alice"],
            &["--account", "a/b=c"],
            &["--account", "alice=a b"],
            &["--drain", "soon"],
            &["--certificate", "a"],
        ] {
            assert!(flags(args).is_err(), "{args:?}");
        }
    }
}
