//! `alknet ssh-config`

use std::fmt::Write as _;

use alknet_core::NodeId;
use serde_json::{Map, Value, json};

use super::{
    dial::Reach,
    ssh::{identity, options},
};
use crate::{failure::Failure, home::Home, known_nodes, output};

/// Print what ~/.ssh/config needs for a node
///
/// With it ssh, scp, sftp, rsync, git and the remote modes of editors reach the node by its
/// name, over any of its transports, and trust its identity alone. The node is pinned the
/// first time, as `alknet ssh` does it.
///
/// ssh takes the first value that it finds of each setting: put the block above `Host *`, or
/// what that says of ProxyCommand, StrictHostKeyChecking or UserKnownHostsFile comes first.
///
/// Examples:
///   alknet ssh-config example.org >> ~/.ssh/config
///   alknet ssh-config --name lab --user root 192.0.2.7:4433 >> ~/.ssh/config
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// HOST[:PORT], a saved name, a node id, or a link to the node
    node: String,
    /// The login name there
    #[arg(long, value_name = "NAME", value_parser = word)]
    user: Option<String>,
    /// What ssh is to call the node [default: its host name]
    #[arg(long, value_name = "ALIAS", value_parser = word)]
    name: Option<String>,
    #[command(flatten)]
    reach: Reach,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    let address = known_nodes::resolve(home, &args.node)?.address;
    let id = match args.reach.pin {
        Some(id) => id,
        None => identity(home, &args.node, args.reach.via).await?,
    };
    let alias = args.name.unwrap_or_else(|| alias(&args.node, &address, id));
    let mut settings = options(home, &address, id, args.reach.via)?.to_vec();
    settings.extend(args.user.map(|user| ("User", user)));
    if args.json {
        let options = settings.into_iter().map(|(name, value)| (name.into(), value.into()));
        let options: Map<String, Value> = options.collect();
        return Ok(output::json(&json!({ "host": alias, "options": options }))?);
    }
    Ok(output::line(block(&alias, &settings))?)
}

/// Begins with an empty line: what it is appended to may end within one.
fn block(alias: &str, settings: &[(&str, String)]) -> String {
    let mut block = format!("\nHost {alias}");
    for (name, value) in settings {
        let _ = write!(block, "\n    {name} {value}");
    }
    block
}

/// The name that somebody saved for the node, its host's, or one made of its id.
fn alias(node: &str, address: &str, id: NodeId) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let named = word(node).or_else(|_| word(host));
    named.unwrap_or_else(|_| format!("alknet-{}", id.short()))
}

/// A word that means itself to ssh, to a shell and before the colon of `HOST:PATH`.
fn word(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ok = !text.is_empty() && !text.starts_with('-') && text.chars().all(plain);
    if ok { Ok(text.into()) } else { Err("letters, digits and -_. are taken") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_a_name_in_any_case() {
        let id = NodeId::from_bytes([7; 32]);
        for (node, address, expected) in [
            ("lab", "192.0.2.7:4433", "lab"),
            ("example.org:443", "example.org:443", "example.org"),
            ("https://example.org/#x", "example.org:443", "example.org"),
            ("[::1]:4433", "[::1]:4433", &*format!("alknet-{}", id.short())),
        ] {
            assert_eq!(alias(node, address, id), expected);
        }
    }

    #[test]
    fn a_block_can_be_appended_to_a_line_without_an_end() {
        let settings = [("Port", "4433".into()), ("User", "root".into())];
        let file = format!("    BatchMode yes{}", block("lab", &settings));
        let expected = ["    BatchMode yes", "Host lab", "    Port 4433", "    User root"];
        assert_eq!(Vec::from_iter(file.lines()), expected);
    }

    #[test]
    fn an_alias_is_one_plain_word() {
        for good in ["lab", "example.org", "192.0.2.7", "a-b_c"] {
            assert_eq!(word(good).as_deref(), Ok(good));
        }
        for bad in ["", "*", "a b", "-oProxyCommand=x", "a:1", "a\nb", "!a", "ä"] {
            assert!(word(bad).is_err(), "{bad:?}");
        }
    }
}
