//! Repositories that are renamed or removed while large files are on their way.

use std::{future::Future, io, path::PathBuf, time::Duration};

use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Notify, time::timeout};

use super::*;

/// Enough for anything that is not meant to take time.
const PATIENCE: Duration = Duration::from_secs(30);
const CONTENT: &str = "large file";

fn name(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

/// Where the object is in a repository.
fn object() -> String {
    let oid = hex::encode(Sha256::digest(CONTENT));
    format!("lfs/objects/{}/{}/{oid}", &oid[..2], &oid[2..4])
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|it| it.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

impl Here {
    /// Sends an object to `private`, where something happens when half of it is there; `None`:
    /// the rest does not come then.
    async fn sends_while(
        &self,
        rest: Option<&'static str>,
        happens: impl Future<Output = ()>,
    ) -> Answer {
        let (half, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, waits) = (half.clone(), go_on.clone());
        let rest = stream::once(async move {
            told.notify_one();
            waits.notified().await;
            rest.ok_or_else(|| io::Error::other("the client is gone"))
        });
        let pieces = stream::iter([Ok(&CONTENT[..5])]).chain(rest);
        let path = format!("private.git/info/lfs/objects/{}", &object()[18..]);
        let put = request("PUT", &path, "", Body::from_stream(pieces));
        let put = with(put, "content-length", &CONTENT.len().to_string());
        let happens = async {
            half.notified().await;
            happens.await;
            go_on.notify_one();
        };
        let answered = async { tokio::join!(self.ask("git", put), happens).0 };
        timeout(PATIENCE, answered).await.unwrap()
    }

    /// Whether the object is in a repository, and nothing else that was on its way.
    fn has_it(&self, repository: &str) -> bool {
        let lfs = self.git_dir(repository).join("lfs");
        let kept = files(&lfs);
        let path = self.git_dir(repository).join(object());
        assert!(kept.iter().all(|it| *it == path), "{kept:?}");
        kept == [path]
    }

    /// What removed repositories have left.
    fn removed(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join(".work")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_dir()).collect()
    }
}

#[tokio::test]
async fn what_is_sent_to_a_removed_repository_leaves_nothing() {
    for (rest, status) in [(Some(&CONTENT[5..]), 404), (None, 400)] {
        let here = Here::new();
        let all = here.server.repositories();
        let removed = async { all.delete(&name("private")).unwrap() };
        let answer = here.sends_while(rest, removed).await;
        assert_eq!((answer.status.as_u16(), answer.unseen), (status, status == 404), "{answer:?}");
        assert!(!here.git_dir("private").exists());
        assert_eq!(here.removed(), Vec::<PathBuf>::new());
        all.create(&name("private"), &Settings::default()).unwrap();
        assert!(!here.has_it("private"));
    }
}

#[tokio::test]
async fn what_is_sent_goes_where_the_repository_is() {
    for anew in [false, true] {
        let here = Here::new();
        let all = here.server.repositories();
        let renamed = async {
            all.rename(&name("private"), &name("team/wiki")).unwrap();
            if anew {
                all.create(&name("private"), &Settings::default()).unwrap();
            }
        };
        let answer = here.sends_while(Some(&CONTENT[5..]), renamed).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(here.has_it("team/wiki"));
        assert!(!here.has_it("private"));
        assert_eq!(here.git_dir("private").exists(), anew);
    }
}

#[tokio::test]
async fn what_is_cut_off_leaves_nothing_in_a_renamed_repository() {
    let here = Here::new();
    let all = here.server.repositories();
    let renamed = async { drop(all.rename(&name("private"), &name("team/wiki")).unwrap()) };
    let answer = here.sends_while(None, renamed).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(!here.has_it("team/wiki"));
    assert!(!here.git_dir("private").exists());
}

#[tokio::test]
async fn a_new_repository_gets_nothing_that_was_sent_to_a_removed_one() {
    let here = Here::new();
    let all = here.server.repositories();
    let removed = async {
        all.delete(&name("private")).unwrap();
        all.create(&name("private"), &Settings::default()).unwrap();
    };
    let answer = here.sends_while(Some(&CONTENT[5..]), removed).await;
    assert_eq!(answer.status, 404, "{answer:?}");
    assert!(!here.git_dir("private").join("lfs").exists());
    assert_eq!(here.removed(), Vec::<PathBuf>::new());
}

/// Whoever may not push does not decide how long the node reads.
#[tokio::test]
async fn no_body_is_read_of_who_is_not_let_in() {
    let here = Here::new();
    for repository in ["private", "missing"] {
        for path in ["objects/batch", "verify", "locks", "locks/verify", "locks/00/unlock"] {
            let body = stream::once(async move { panic!("{path} is read") });
            let body = Body::from_stream(body.map(|()| Ok::<_, io::Error>(Bytes::new())));
            let path = format!("{repository}.git/info/lfs/{path}");
            let answer = here.ask("git:read:public", request("POST", &path, LFS, body)).await;
            assert_eq!((answer.status.as_u16(), answer.unseen), (404, true), "{path} {answer:?}");
        }
    }
}
