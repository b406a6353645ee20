//! `alknet peer add|list|remove|explain`.

mod explain;

use alknet_core::{AuditEvent, KeyFingerprint, Scopes};
use clap::Subcommand;
use serde::Serialize;

use super::{audit::unrecorded, parse_name, parse_scopes};
use crate::{
    audit,
    failure::Failure,
    home::Home,
    output,
    peer_key::PeerKey,
    roster::{
        ChangeError, Record,
        peers::{self, Removal},
    },
    store::{Added, Authority, By, Peer, PeerChange, PeerError, Store},
    words::parse_principal,
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
    Explain(explain::Args),
}

/// Add a peer, or keys to one that is there
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet peer add alice --key ~/alice.pub --key ed25519:1f0c… --scope ssh,git\n  alknet peer add alice --key \"ssh-ed25519 AAAA… alice@new-laptop\"\n  alknet peer add bob --ca team-ca.pub --principal bob --scope git:read:notes"
)]
struct Add {
    /// What to call the peer
    #[arg(value_parser = parse_name)]
    name: String,
    /// An OpenSSH public key, a file of one, ed25519:<hex> as `alknet id` prints it, a file
    /// of an X.509 certificate in PEM, or x509:<hex> with its SHA-256
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// An OpenSSH authority, its public key or a file of it: whoever has a certificate of it
    /// for one of the principals is this peer
    #[arg(long = "ca", value_name = "KEY", requires = "principals")]
    authorities: Vec<String>,
    /// What a certificate of the authorities must name
    #[arg(long = "principal", value_name = "NAME", requires = "authorities", value_parser = parse_principal)]
    principals: Vec<String>,
    /// What it may do: services or parts of them with commas between, such as ssh or
    /// git:read:notes, or * for everything; replaces what it might do before
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

/// Remove a peer with its keys and tokens, or some of its keys and authorities
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet peer remove alice\n  alknet peer remove alice --key SHA256:T7SvZ2cs…\n  alknet peer remove bob --ca team-ca.pub"
)]
struct Remove {
    /// The peer's name
    name: String,
    /// Remove this key alone: as it was added, or its fingerprint
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// Remove this authority alone: as it was added, or its fingerprint
    #[arg(long = "ca", value_name = "KEY")]
    authorities: Vec<String>,
    /// Of the authority, remove this principal alone
    #[arg(long = "principal", value_name = "NAME", requires = "authorities")]
    principals: Vec<String>,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    let store = Store::open(home).await?;
    let result = match args.action {
        Action::Add(args) => add(args, home, &store).await,
        Action::List(args) => list(&args, &store).await,
        Action::Remove(args) => remove(args, home, &store).await,
        Action::Explain(args) => explain::run(&args, home, &store).await,
    };
    store.close().await;
    result
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    new: bool,
    new_keys: usize,
    new_principals: usize,
}

async fn add(args: Add, home: &Home, store: &Store) -> Result<(), Failure> {
    let keys = args
        .keys
        .iter()
        .map(|key| PeerKey::from_argument(key).map_err(|error| wrong_key(key, error)))
        .collect::<Result<Vec<_>, _>>()?;
    let authorities = args
        .authorities
        .iter()
        .map(|key| authority(key, &args.principals))
        .collect::<Result<Vec<_>, _>>()?;
    let change = PeerChange {
        by: By::OWNER,
        keys: &keys,
        authorities: &authorities,
        scopes: args.scopes.as_ref(),
    };
    let added = peers::add(store, &args.name, change, recorder(home)).await.map_err(failed)?;
    let Added { new, keys: new_keys, principals: new_principals } = added;
    let name = &args.name;
    if args.json {
        output::json(&Report { name, new, new_keys, new_principals })?;
    } else {
        let verb = if new { "added" } else { "updated" };
        let mut text = format!("{verb} {name}: {}", counted(new_keys, "new key"));
        if !authorities.is_empty() {
            text.push_str(&format!(", {}", counted(new_principals, "new principal")));
        }
        output::note(text)?;
    }
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn authority(key: &str, principals: &[String]) -> Result<Authority, Failure> {
    let principals = principals.to_vec();
    let key = PeerKey::authority_from_argument(key).map_err(|error| wrong_key(key, error))?;
    Ok(Authority { key, principals })
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

/// The peer with its first key or authority, then a row for each further one.
fn rows(peer: &Peer) -> Vec<[String; 4]> {
    let keys = peer.keys.iter().map(|key| [key.fingerprint.clone(), key.comment.clone()]);
    let authorities = peer
        .authorities
        .iter()
        .map(|of| [format!("ca {} for {}", of.fingerprint, of.principal), of.comment.clone()]);
    let none = peer.keys.is_empty() && peer.authorities.is_empty();
    let cells = keys.chain(authorities).chain(none.then(Default::default));
    cells
        .enumerate()
        .map(|(i, [key, comment])| match i {
            0 => [peer.name.clone(), peer.scopes.to_string(), key, comment],
            _ => [String::new(), String::new(), key, comment],
        })
        .collect()
}

async fn remove(args: Remove, home: &Home, store: &Store) -> Result<(), Failure> {
    let keys: Vec<KeyFingerprint> =
        args.keys.iter().map(|key| fingerprint(key)).collect::<Result<_, _>>()?;
    let authorities = args.authorities.iter().map(|key| fingerprint(key));
    let authorities: Vec<KeyFingerprint> = authorities.collect::<Result<_, _>>()?;
    let removal = Removal { keys: &keys, authorities: &authorities, principals: &args.principals };
    let removed = peers::remove(store, By::OWNER, &args.name, removal, recorder(home));
    removed.await.map_err(failed)
}

/// Writes what was changed to the audit log of the folder.
fn recorder(home: &Home) -> impl Record {
    |events: Vec<AuditEvent>| audit::append_all(home, events)
}

fn failed(error: ChangeError<PeerError>) -> Failure {
    match error {
        ChangeError::Refused(error) => wrong_peer(error),
        ChangeError::Unrecorded(error) => unrecorded(error),
    }
}

/// Of a key as it was added, or itself.
fn fingerprint(key: &str) -> Result<KeyFingerprint, Failure> {
    match key.parse() {
        Ok(fingerprint) => Ok(fingerprint),
        Err(_) => {
            Ok(PeerKey::from_argument(key).map_err(|error| wrong_key(key, error))?.fingerprint)
        }
    }
}

fn wrong_key(key: &str, error: crate::peer_key::InvalidKey) -> Failure {
    let shown: String = key.chars().filter(|c| !c.is_control()).take(40).collect();
    Failure::from(error).context(format!("the key {shown:?}"))
}

fn wrong_peer(error: PeerError) -> Failure {
    let hint = match &error {
        PeerError::NoScopes(name) => format!("alknet peer add {name} --key … --scope ssh"),
        PeerError::KeyTaken { peer, .. } => format!("alknet peer remove {peer} --key …"),
        PeerError::PrincipalTaken { peer, .. } => format!("alknet peer remove {peer} --ca …"),
        PeerError::Unknown(_) | PeerError::UnknownKey(_) | PeerError::UnknownAuthority(_) => {
            "see alknet peer list".into()
        }
        PeerError::Owner => "remove single keys of the owner with --key".into(),
        PeerError::TooManyKeys | PeerError::TooManyAuthorities => {
            "remove what is no longer used".into()
        }
        PeerError::Store(_)
        | PeerError::NoSession
        | PeerError::Beyond(_)
        | PeerError::GrantsMore => return error.into(),
    };
    Failure::from(error).hint(hint)
}
