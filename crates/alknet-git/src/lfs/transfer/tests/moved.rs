//! Sessions whose repository is renamed or removed.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, DuplexStream};

use super::*;

/// Enough for anything that is not meant to take time.
const PATIENCE: Duration = Duration::from_secs(30);

fn name(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

/// The client's end of a session.
struct Talk(DuplexStream);

impl Talk {
    async fn say(&mut self, said: &str) {
        self.0.write_all(said.as_bytes()).await.unwrap();
    }

    /// What comes up to the end of an answer.
    async fn hear(&mut self) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(b"0000") {
            heard.push(timeout(PATIENCE, self.0.read_u8()).await.unwrap().unwrap());
        }
        String::from_utf8(heard).unwrap()
    }

    async fn ask(&mut self, said: &str) -> String {
        self.say(said).await;
        self.hear().await
    }

    /// Says that an object comes, and waits until the node is ready; what is left to be said.
    async fn begin(&mut self, content: &str, repository: &Path) -> String {
        let rest = packet(content) + "0000";
        self.say(put(content).strip_suffix(&rest).unwrap()).await;
        let ready = async {
            while incoming(repository) == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, ready).await.unwrap();
        rest
    }
}

impl Here {
    /// A session to write to `notes`.
    async fn talks(&self, talk: impl AsyncFnOnce(&mut Talk)) {
        let (client, server) = tokio::io::duplex(1024 * 1024);
        let (input, output) = tokio::io::split(server);
        let (caller, operation) = (caller("ann", "git"), LfsOperation::Upload);
        let serve = self.server.lfs_transfer(name("notes"), operation, &caller, input, output);
        let talk = async {
            let mut client = Talk(client);
            client.hear().await;
            talk(&mut client).await;
            assert_eq!(client.ask(&command(&["quit"])).await, command(&["status 200"]));
        };
        let (served, ()) = tokio::join!(serve, talk);
        served.unwrap();
    }

    fn all(&self) -> &Repositories {
        self.server.repositories()
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.git"))
    }

    /// What removed repositories have left.
    fn removed(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join(".work")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_dir()).collect()
    }
}

fn put(content: &str) -> String {
    longer(&[&format!("put-object {}", oid(content)), "size=4"], &packet(content))
}

fn has(repository: &Path, content: &str) -> bool {
    let oid = oid(content);
    repository.join("lfs/objects").join(&oid[..2]).join(&oid[2..4]).join(&oid).exists()
}

fn incoming(repository: &Path) -> usize {
    std::fs::read_dir(repository.join("lfs/incoming")).into_iter().flatten().count()
}

#[tokio::test]
async fn a_session_goes_on_where_the_repository_is() {
    for anew in [false, true] {
        let here = Here::new(&Settings::default());
        here.talks(async |client| {
            let rest = client.begin("good", &here.folder("notes")).await;
            here.all().rename(&name("notes"), &name("team/wiki")).unwrap();
            if anew {
                here.all().create(&name("notes"), &Settings::default()).unwrap();
            }
            assert_eq!(client.ask(&rest).await, longer(&["status 200"], ""));
            assert_eq!(client.ask(&put("more")).await, longer(&["status 200"], ""));
            let verify = command(&[&format!("verify-object {}", oid("more")), "size=4"]);
            assert_eq!(client.ask(&verify).await, command(&["status 200"]));
            let got = client.ask(&command(&[&format!("get-object {}", oid("good"))])).await;
            assert_eq!(got, longer(&["status 200", "size=4"], &packet("good")));
            let locked = client.ask(&command(&["lock", "path=x"])).await;
            assert!(locked.starts_with(&line("status 201")), "{locked}");
        })
        .await;
        let (old, new) = (here.folder("notes"), here.folder("team/wiki"));
        assert!(has(&new, "good") && has(&new, "more") && new.join("lfs/locks.json").exists());
        assert_eq!((incoming(&new), old.exists()), (0, anew));
        assert!(!old.join("lfs").exists());
    }
}

#[tokio::test]
async fn a_session_writes_nothing_when_the_repository_is_gone() {
    let gone = longer(&["status 404"], &line("the repository is gone"));
    for anew in [false, true] {
        let here = Here::new(&Settings::default());
        here.talks(async |client| {
            assert_eq!(client.ask(&put("left")).await, longer(&["status 200"], ""));
            let rest = client.begin("good", &here.folder("notes")).await;
            here.all().delete(&name("notes")).unwrap();
            if anew {
                here.all().create(&name("notes"), &Settings::default()).unwrap();
            }
            assert_eq!(client.ask(&rest).await, gone);
            assert_eq!(client.ask(&put("more")).await, gone);
            assert_eq!(client.ask(&command(&["lock", "path=x"])).await, gone);
            let got = client.ask(&command(&[&format!("get-object {}", oid("left"))])).await;
            assert!(got.starts_with(&line("status 404")), "{got}");
        })
        .await;
        assert_eq!(here.removed(), Vec::<PathBuf>::new());
        assert_eq!(here.folder("notes").exists(), anew);
        assert!(!here.folder("notes").join("lfs").exists());
    }
}

/// What is removed has no name any more, and its files go one after the other.
#[tokio::test]
async fn nothing_comes_between_the_files_that_are_being_removed() {
    let here = Here::new(&Settings::default());
    let removed = here.folder.path().join(".work/removed");
    here.talks(async |client| {
        std::fs::rename(here.folder("notes"), &removed).unwrap();
        for said in [put("good"), command(&["lock", "path=x"])] {
            let answer = client.ask(&said).await;
            assert!(answer.starts_with(&line("status 404")), "{answer}");
        }
    })
    .await;
    assert!(!removed.join("lfs").exists() && !here.folder("notes").exists());
}
