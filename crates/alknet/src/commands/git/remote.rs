//! The repositories of another node, by the operations `git/…`.

use alknet_call::{CallOptions, Peer};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Change, Named, show::Collected};
use crate::{commands::dial::Reach, failure::Failure, git::admin::Shown, home::Home, remote};

/// A repository, as `git/repos` tells of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) public: bool,
    pub(super) default_branch: Option<String>,
    pub(super) empty: bool,
    pub(super) size: u64,
    pub(super) updated: i64,
    pub(super) rights: Granted,
}

/// What this machine may do with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Granted {
    pub(super) push: bool,
    pub(super) admin: bool,
}

#[derive(Debug, Deserialize)]
struct Page {
    repositories: Vec<Listed>,
    truncated: bool,
}

/// The repositories of a node that this machine may know of.
#[derive(Debug)]
pub(super) struct All {
    pub(super) repositories: Vec<Listed>,
    /// Whether the node has given all of them.
    pub(super) is_whole: bool,
}

#[derive(Debug, Deserialize)]
struct Sizes {
    before: u64,
    after: u64,
}

/// Calls an operation of a node.
async fn call<T: DeserializeOwned>(
    home: &Home,
    node: &str,
    reach: &Reach,
    operation: &str,
    input: &(impl Serialize + Sync),
) -> Result<T, Failure> {
    remote::call(home, node, reach, async |peer: Peer| {
        let answer = peer.call_raw(operation, input, CallOptions::default()).await?;
        Ok(serde_json::from_str(answer.get())?)
    })
    .await
}

pub(super) async fn change(
    home: &Home,
    node: &str,
    reach: &Reach,
    change: &Change,
) -> Result<Shown, Failure> {
    match change {
        Change::Create(wanted) => call(home, node, reach, "git/create", wanted).await,
        Change::Show(wanted) => call(home, node, reach, "git/show", wanted).await,
        Change::Rename(wanted) => call(home, node, reach, "git/rename", wanted).await,
        Change::Configure(wanted) => call(home, node, reach, "git/configure", wanted).await,
        Change::Mirror(wanted, _) => call(home, node, reach, "git/mirror", wanted).await,
    }
}

pub(super) async fn delete(
    home: &Home,
    node: &str,
    reach: &Reach,
    wanted: &Named,
) -> Result<(), Failure> {
    call::<Value>(home, node, reach, "git/delete", wanted).await.map(drop)
}

/// All repositories: a node gives them page by page.
pub(super) async fn list(home: &Home, node: &str, reach: &Reach) -> Result<All, Failure> {
    remote::call(home, node, reach, async |peer: Peer| {
        let (mut repositories, mut input) = (Vec::new(), json!({}));
        loop {
            let page: Page = peer.call("git/repos", &input).await?;
            let before = repositories.last().map(|it: &Listed| it.name.clone());
            repositories.extend(page.repositories);
            let last = repositories.last().map(|it| it.name.clone());
            // A page that goes no further is not followed by one that does.
            match last.filter(|_| page.truncated) {
                Some(last) if Some(&last) > before.as_ref() => input = json!({ "after": last }),
                _ => return Ok(All { repositories, is_whole: !page.truncated }),
            }
        }
    })
    .await
}

pub(super) async fn collect(
    home: &Home,
    node: &str,
    reach: &Reach,
    names: &[String],
) -> Result<Vec<Collected>, Failure> {
    let mut all = Vec::new();
    for name in names {
        let wanted = Named { name: name.clone() };
        let Sizes { before, after } = call(home, node, reach, "git/gc", &wanted).await?;
        all.push(Collected { name: name.clone(), before, after });
    }
    Ok(all)
}
