//! `alknet login`.

use alknet_core::{NodeId, Secret};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{parse_name, prompt, ssh::identity};
use crate::{
    connect::Via,
    credentials,
    failure::Failure,
    home::Home,
    known_nodes::{self, Target},
    output,
    store::TOKEN_PREFIX,
};

/// Save the token that a node's owner gave you
///
/// The token is read from stdin, or asked for at a terminal without showing it. It is kept
/// for that node alone, and the node never sees it: a key made from it is proven instead.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet login example.org:4433 --pin ed25519:1f0c… --name home\n  alknet login home < token.txt"
)]
pub(crate) struct Args {
    /// HOST[:PORT], a saved name, or a node id
    node: String,
    /// The identity that the node has to have; nothing is trusted on first use then
    #[arg(long, value_name = "ID")]
    pin: Option<NodeId>,
    /// Save the node under this name
    #[arg(long, value_parser = parse_name)]
    name: Option<String>,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    let (address, id) = whom(&args, home).await?;
    let token = prompt::secret(&format!("token for {}:", args.node)).await?;
    if !is_token(&token) {
        return Err(Failure::new("this is not a token")
            .hint(format!("a token begins with {TOKEN_PREFIX}: alknet token create prints one")));
    }
    if let Some(address) = &address {
        known_nodes::pin(home, address, id)?;
    }
    if let (Some(name), Some(address)) = (&args.name, &address) {
        known_nodes::save_name(home, name, address, id)?;
    }
    credentials::save(home, id, &token)?;
    output::note(format_args!("saved the token for {id}"))?;
    Ok(())
}

/// The node's address, if it is known, and the identity that it is expected to have.
async fn whom(args: &Args, home: &Home) -> Result<(Option<String>, NodeId), Failure> {
    let node = known_nodes::resolve(home, &args.node);
    if let (Err(_), Ok(id)) = (&node, args.node.parse::<NodeId>()) {
        return Ok((None, id));
    }
    let Target { address, id } = node?;
    match (id, args.pin) {
        (Some(known), Some(pin)) if known != pin => {
            Err(Failure::new(format!("{} is pinned to {known}, not to {pin}", args.node)))
        }
        (Some(id), _) | (None, Some(id)) => Ok((Some(address), id)),
        (None, None) => Ok((Some(address), meet(args, home).await?)),
    }
}

/// Learns who a node is that is met for the first time, and pins it. A node that hides its
/// services does not tell strangers who it is.
async fn meet(args: &Args, home: &Home) -> Result<NodeId, Failure> {
    identity(home, &args.node, Via::Auto).await.map_err(|failure| {
        failure
            .context("the node's identity is not known, and it did not tell")
            .hint("give it with --pin: alknet id prints it on the node")
    })
}

/// What a node makes: 256 bits in base64url after the prefix.
pub(crate) fn is_token(secret: &Secret) -> bool {
    let random = secret.expose().strip_prefix(TOKEN_PREFIX);
    random.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).is_some_and(|bytes| bytes.len() >= 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_are_saved() {
        assert!(is_token(&Secret::new(format!("alk_{}", "A".repeat(43)))));
        for bad in
            ["", "alk_", "alk_short", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA", "alk_/////////////////////w"]
        {
            assert!(!is_token(&Secret::new(bad)), "{bad}");
        }
    }
}
