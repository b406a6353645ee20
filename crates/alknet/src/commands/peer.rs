//! `alknet peer add|list|remove`.

use alknet_core::{KeyFingerprint, Scopes};
use clap::Subcommand;
use serde::Serialize;

use super::{parse_name, parse_scopes};
use crate::{
    failure::Failure,
    home::Home,
    output,
    peer_key::PeerKey,
    store::{Added, Peer, PeerError, Store},
};

/// Say who may use this node
///
/// A peer is somebody with any number of keys. A change holds at once, also for a node
/// that is running.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet peer add alice --key alice.pub --scope ssh")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Add(Add),
    List(List),
    Remove(Remove),
}

/// Add a peer, or keys to one that is there
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet peer add alice --key ~/alice.pub --key ed25519:1f0c… --scope ssh,git\n  alknet peer add alice --key \"ssh-ed25519 AAAA… alice@new-laptop\""
)]
struct Add {
    /// What to call the peer
    #[arg(value_parser = parse_name)]
    name: String,
    /// An OpenSSH public key, a file of one, or ed25519:<hex> as `alknet id` prints it
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// What it may do: names of services with commas between, or * for everything; replaces
    /// what it might do before
    #[arg(long = "scope", value_name = "SCOPES", value_parser = parse_scopes)]
    scopes: Option<Scopes>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List the peers and their keys
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet peer list --json")]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Remove a peer with its keys and tokens, or some of its keys
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet peer remove alice\n  alknet peer remove alice --key SHA256:T7SvZ2cs…"
)]
struct Remove {
    /// The peer's name
    name: String,
    /// Remove this key alone: as it was added, or its fingerprint
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    let store = Store::open(home).await?;
    let result = match args.action {
        Action::Add(args) => add(args, &store).await,
        Action::List(args) => list(&args, &store).await,
        Action::Remove(args) => remove(args, &store).await,
    };
    store.close().await;
    result
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    new: bool,
    new_keys: usize,
}

async fn add(args: Add, store: &Store) -> Result<(), Failure> {
    let keys = args
        .keys
        .iter()
        .map(|key| PeerKey::from_argument(key).map_err(|error| wrong_key(key, error)))
        .collect::<Result<Vec<_>, _>>()?;
    let Added { new, keys: new_keys } =
        store.add_peer(&args.name, &keys, args.scopes.as_ref()).await.map_err(wrong_peer)?;
    let name = &args.name;
    if args.json {
        output::json(&Report { name, new, new_keys })?;
    } else {
        let verb = if new { "added" } else { "updated" };
        output::note(format_args!("{verb} {name}: {new_keys} new keys"))?;
    }
    Ok(())
}

async fn list(args: &List, store: &Store) -> Result<(), Failure> {
    let peers = store.peers().await?;
    if args.json {
        output::json(&peers)?;
        return Ok(());
    }
    let rows: Vec<_> = peers.iter().flat_map(rows).collect();
    output::table(["NAME", "SCOPES", "KEY", "COMMENT"], &rows)?;
    Ok(())
}

/// The peer with its first key, then a row for each further one.
fn rows(peer: &Peer) -> Vec<[String; 4]> {
    let name = || [peer.name.clone(), peer.scopes.to_string()];
    let keys = peer.keys.iter().map(|key| [key.fingerprint.clone(), key.comment.clone()]);
    let mut rows: Vec<[String; 4]> = keys
        .enumerate()
        .map(|(i, [key, comment])| {
            let [name, scopes] = if i == 0 { name() } else { Default::default() };
            [name, scopes, key, comment]
        })
        .collect();
    if rows.is_empty() {
        let [name, scopes] = name();
        rows.push([name, scopes, String::new(), String::new()]);
    }
    rows
}

async fn remove(args: Remove, store: &Store) -> Result<(), Failure> {
    if args.keys.is_empty() {
        return store.remove_peer(&args.name).await.map_err(wrong_peer);
    }
    for key in &args.keys {
        let fingerprint = match key.parse::<KeyFingerprint>() {
            Ok(fingerprint) => fingerprint,
            Err(_) => {
                PeerKey::from_argument(key).map_err(|error| wrong_key(key, error))?.fingerprint
            }
        };
        store.remove_key(&args.name, &fingerprint).await.map_err(wrong_peer)?;
    }
    Ok(())
}

fn wrong_key(key: &str, error: crate::peer_key::InvalidKey) -> Failure {
    let shown: String = key.chars().filter(|c| !c.is_control()).take(40).collect();
    Failure::from(error).context(format!("the key {shown:?}"))
}

fn wrong_peer(error: PeerError) -> Failure {
    let hint = match &error {
        PeerError::NoScopes(name) => format!("alknet peer add {name} --key … --scope ssh"),
        PeerError::KeyTaken { peer, .. } => format!("alknet peer remove {peer} --key …"),
        PeerError::Unknown(_) | PeerError::UnknownKey(_) => "see alknet peer list".into(),
        PeerError::Owner => "remove single keys of the owner with --key".into(),
        PeerError::TooManyKeys => "remove keys that are no longer used".into(),
        PeerError::Store(_) => return error.into(),
    };
    Failure::from(error).hint(hint)
}
