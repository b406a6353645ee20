mod moved;

use std::{sync::Arc, time::Duration};

use alknet_core::{Alpn, Audit, AuthContext, TransportKind};
use alknet_testing::identities::identity;
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncWriteExt as _, time::sleep};

use super::*;
use crate::{
    engine::InstalledGit,
    repositories::{Repositories, Settings},
    server::GitConfig,
};

/// A server of one repository.
struct Here {
    folder: tempfile::TempDir,
    server: GitServer,
}

impl Here {
    fn new(settings: &Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(folder.path()).unwrap();
        repositories.create(&"notes".parse().unwrap(), settings).unwrap();
        let engine = InstalledGit::named("git");
        let mut config = GitConfig::new(repositories, engine, Audit::to_log());
        config.limits.bounds.total = Duration::from_secs(30 * 60);
        Self { folder, server: GitServer::new(config) }
    }

    /// What is answered to all that a client says.
    async fn says(&self, scope: &str, operation: LfsOperation, said: &[u8]) -> Said {
        let (client, server) = tokio::io::duplex(1024 * 1024);
        let (input, output) = tokio::io::split(server);
        let caller = caller("ann", scope);
        let name = "notes".parse().unwrap();
        let serve = self.server.lfs_transfer(name, operation, &caller, input, output);
        let (mut read, mut write) = tokio::io::split(client);
        let talk = async {
            // Whoever is refused does not read it all.
            let _ = write.write_all(said).await;
            let _ = write.shutdown().await;
            let mut answer = Vec::new();
            read.read_to_end(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        };
        let (outcome, answer) = tokio::join!(serve, talk);
        Said { outcome, answer }
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let incoming = self.folder.path().join("notes.git/lfs/incoming");
        let entries = std::fs::read_dir(incoming).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

#[derive(Debug)]
struct Said {
    outcome: Result<(), GitError>,
    answer: String,
}

impl Said {
    /// What came behind the capabilities.
    #[track_caller]
    fn answer(&self) -> &str {
        let greeting = "000eversion=1\n000clocking\n0000";
        self.answer.strip_prefix(greeting).unwrap_or_else(|| panic!("{self:?}"))
    }
}

fn caller(name: &str, scope: &str) -> Caller {
    let alpn = Alpn::service("git").unwrap();
    let mut auth = AuthContext::anonymous(alpn, TransportKind::Quic, None);
    auth.identity = (!scope.is_empty()).then(|| Arc::new(identity(name, &[scope])));
    Caller::of(auth)
}

fn line(text: &str) -> String {
    format!("{:04x}{text}\n", text.len() + 5)
}

fn command(lines: &[&str]) -> String {
    lines.iter().map(|text| line(text)).collect::<String>() + "0000"
}

/// A command with lines or data behind its arguments.
fn longer(lines: &[&str], rest: &str) -> String {
    lines.iter().map(|text| line(text)).collect::<String>() + "0001" + rest + "0000"
}

fn packet(data: &str) -> String {
    format!("{:04x}{data}", data.len() + 4)
}

fn oid(content: &str) -> String {
    hex::encode(Sha256::digest(content))
}

#[tokio::test]
async fn an_object_goes_there_and_comes_back() {
    let here = Here::new(&Settings::default());
    let oid = oid("large file");
    let wanted = line(&format!("{oid} 10"));
    let upload = [
        command(&["version 1"]),
        longer(&["batch", "transfer=ssh", "hash-algo=sha256", "refname=refs/heads/x"], &wanted),
        longer(&[&format!("put-object {oid}"), "size=10"], &(packet("large") + &packet(" file"))),
        command(&[&format!("verify-object {oid}"), "size=10"]),
        command(&[&format!("verify-object {oid} 11")]),
        longer(&["batch"], &wanted),
        command(&["quit"]),
    ];
    let said = here.says("git:write:notes", LfsOperation::Upload, upload.concat().as_bytes()).await;
    let expected = [
        command(&["status 200"]),
        longer(&["status 200", "hash-algo=sha256"], &line(&format!("{oid} 10 upload"))),
        longer(&["status 200"], ""),
        command(&["status 200"]),
        longer(&["status 409"], &line("the object has another size")),
        longer(&["status 200", "hash-algo=sha256"], &line(&format!("{oid} 10 noop"))),
        command(&["status 200"]),
    ];
    assert_eq!(said.answer(), expected.concat());
    said.outcome.unwrap();

    let other = self::oid("other");
    let wanted = wanted + &line(&format!("{other} 5"));
    let download = [
        longer(&["batch"], &wanted),
        command(&[&format!("get-object {oid}")]),
        command(&[&format!("get-object {other}")]),
    ];
    let download = download.concat();
    let said = here.says("git:read:notes", LfsOperation::Download, download.as_bytes()).await;
    let objects = [format!("{oid} 10 download"), format!("{other} 5 noop")];
    let objects: String = objects.iter().map(|text| line(text)).collect();
    let expected = [
        longer(&["status 200", "hash-algo=sha256"], &objects),
        longer(&["status 200", "size=10"], &packet("large file")),
        longer(&["status 404"], &line("there is no such object")),
    ];
    assert_eq!(said.answer(), expected.concat());
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_the_session_goes_on() {
    let here = Here::new(&Settings { quota: Some(100_000), ..Settings::default() });
    let good = oid("good");
    for (what, status) in [
        (longer(&[&format!("put-object {}", oid("other")), "size=4"], &packet("good")), 422),
        (longer(&[&format!("put-object {good}"), "size=3"], &packet("good")), 422),
        (longer(&[&format!("put-object {good}"), "size=5"], &packet("good")), 422),
        (longer(&[&format!("put-object {good}"), "size=100001"], &packet("good")), 507),
        (longer(&[&format!("put-object {good}")], &packet("good")), 400),
        (longer(&["put-object ../../config", "size=4"], &packet("good")), 400),
        (longer(&["batch", "hash-algo=sha1"], &line(&format!("{good} 4"))), 409),
        (longer(&["batch"], &line(&format!("{good} 100001"))), 507),
        (longer(&["batch"], &line("../../config 4")), 400),
        (longer(&["batch"], &line(&format!("{good} 4")).repeat(MAX_BATCH + 1)), 413),
        (command(&["get-object ../../config"]), 400),
        (command(&["lock", "path="]), 422),
        (command(&["unlock none"]), 404),
        (command(&["version 2"]), 400),
        (longer(&["upload-pack"], &packet("data")), 405),
    ] {
        let said = what.clone() + &command(&["quit"]);
        let said = here.says("git", LfsOperation::Upload, said.as_bytes()).await;
        let status = line(&format!("status {status}"));
        assert!(said.answer().starts_with(&status), "{what} {said:?}");
        assert!(said.answer().ends_with(&command(&["status 200"])), "{what} {said:?}");
        assert_eq!(here.files(), Vec::<std::path::PathBuf>::new());
    }
}

#[tokio::test]
async fn what_is_no_protocol_ends_the_session() {
    let here = Here::new(&Settings::default());
    let endless = line("x=y").repeat(65);
    for said in [
        "zzzz",
        "0000",
        "0001",
        "0003",
        "ffff",
        "0009quit\n",
        &format!("{}{endless}0000", line("quit")),
        &longer(&["batch"], "0001"),
    ] {
        let said = here.says("git", LfsOperation::Upload, said.as_bytes()).await;
        assert!(said.outcome.is_err(), "{said:?}");
    }
    let cut = longer(&[&format!("put-object {}", oid("good")), "size=4"], &packet("goo"));
    let cut = cut.strip_suffix("0000").unwrap();
    assert!(here.says("git", LfsOperation::Upload, cut.as_bytes()).await.outcome.is_err());
    assert_eq!(here.files(), Vec::<std::path::PathBuf>::new());
}

/// What becomes of somebody who says one thing, and then another again and again.
async fn said_again_and_again(first: &str, again: &str, each: Duration) -> LfsError {
    let here = Here::new(&Settings::default());
    let (client, server) = tokio::io::duplex(1024 * 1024);
    let (input, output) = tokio::io::split(server);
    let (caller, name) = (caller("ann", "git"), "notes".parse().unwrap());
    let serve = here.server.lfs_transfer(name, LfsOperation::Upload, &caller, input, output);
    let (mut read, mut write) = tokio::io::split(client);
    let talk = async {
        write.write_all(first.as_bytes()).await.unwrap();
        loop {
            write.write_all(again.as_bytes()).await.unwrap();
            sleep(each).await;
        }
    };
    let ended = tokio::select! {
        ended = serve => ended,
        () = talk => unreachable!(),
        _ = async { tokio::io::copy(&mut read, &mut tokio::io::sink()).await } => unreachable!(),
    };
    assert_eq!(here.files(), Vec::<std::path::PathBuf>::new());
    match ended {
        Err(GitError::Lfs(error)) => error,
        ended => panic!("{ended:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn who_sends_too_slowly_is_sent_away() {
    let put = line(&format!("put-object {}", oid("good"))) + &line("size=1000000") + "0001";
    let each = Duration::from_secs(20);
    let error = said_again_and_again(&put, &packet("x"), each).await;
    assert!(matches!(error, LfsError::Stalled), "{error:?}");
    // Also who does nothing wrong, and does not go.
    let error = said_again_and_again("", &command(&["version 1"]), each).await;
    assert!(matches!(error, LfsError::Late(_)), "{error:?}");
}

#[tokio::test]
async fn only_who_may_push_writes() {
    let here = Here::new(&Settings::default());
    let put = longer(&[&format!("put-object {}", oid("good")), "size=4"], &packet("good"));
    for said in [put.as_str(), &command(&["lock", "path=x"]), &command(&["unlock x"])] {
        let said = here.says("git:read:notes", LfsOperation::Download, said.as_bytes()).await;
        assert!(said.answer().starts_with(&line("status 403")), "{said:?}");
    }
    for (scope, operation) in [
        ("git:read:notes", LfsOperation::Upload),
        ("git:read:other", LfsOperation::Download),
        ("", LfsOperation::Download),
    ] {
        let said = here.says(scope, operation, b"").await;
        assert_eq!(said.answer, "", "{scope}");
        assert!(said.outcome.is_err());
    }
    let off = Here::new(&Settings { lfs: false, ..Settings::default() });
    let said = off.says("git", LfsOperation::Upload, b"").await;
    assert!(matches!(said.outcome, Err(GitError::Lfs(LfsError::Off))), "{said:?}");
}

#[tokio::test]
async fn files_are_locked_and_unlocked() {
    let here = Here::new(&Settings::default());
    let lock = command(&["lock", "path=a b.bin", "refname=refs/heads/x"]);
    let twice = lock.clone() + &lock;
    let said = here.says("git", LfsOperation::Upload, twice.as_bytes()).await;
    let answer = said.answer();
    let id = answer.split_once("id=").unwrap().1.split_once('\n').unwrap().0;
    assert!(answer.starts_with(&line("status 201")), "{answer}");
    assert!(answer.contains(&line("status 409")), "{answer}");
    assert_eq!(answer.matches("path=a b.bin\n").count(), 2, "{answer}");
    assert_eq!(answer.matches("ownername=ann\n").count(), 2, "{answer}");

    let list = command(&["list-lock", "limit=10"]) + &command(&["list-locks", "path=other"]);
    let said = here.says("git:read:notes", LfsOperation::Download, list.as_bytes()).await;
    for expected in [
        line(&format!("lock {id}")),
        line(&format!("path {id} a b.bin")),
        line(&format!("ownername {id} ann")),
        line(&format!("owner {id} ours")),
        longer(&["status 200"], ""),
    ] {
        assert!(said.answer().contains(&expected), "{said:?}");
    }
    let unlock = command(&[&format!("unlock {id}")]);
    let said = here.says("git", LfsOperation::Upload, unlock.as_bytes()).await;
    assert!(said.answer().starts_with(&line("status 200")), "{said:?}");
    assert!(said.answer().contains(&line("path=a b.bin")), "{said:?}");
}

#[test]
fn operations_are_words() {
    assert_eq!("download".parse(), Ok(LfsOperation::Download));
    assert_eq!("upload".parse(), Ok(LfsOperation::Upload));
    for word in ["", "Upload", "upload ", "delete", "--upload"] {
        assert!(word.parse::<LfsOperation>().is_err(), "{word:?}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_are_a_surprise(
        said in proptest::collection::vec("0000|0001|[0-9a-f]{4}|(batch|lock|put-object) |\\PC", 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let here = Here::new(&Settings::default());
        let said = said.concat();
        let said = runtime.block_on(here.says("git", LfsOperation::Upload, said.as_bytes()));
        proptest::prop_assert!(said.answer.starts_with("000eversion=1\n000clocking\n0000"));
        let kept = here.folder.path().join("notes.git/lfs/objects");
        proptest::prop_assert!(!kept.exists());
    }
}
