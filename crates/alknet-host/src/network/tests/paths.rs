//! Unix sockets, in folders of the test's own.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        Self(folder)
    }

    /// Without links, as the system names it.
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    /// Allows everything in the folder `in`.
    fn policy(&self) -> Policy {
        let inside: Destination = self.path("in/*").to_str().unwrap().parse().unwrap();
        let rule = Rule { connect: vec![inside.clone()], listen: vec![inside], ..Rule::default() };
        Policy::new(settings(vec![rule]))
    }
}

fn unix(path: impl AsRef<Path>) -> Target {
    Target::Unix(path.as_ref().to_owned())
}

#[tokio::test]
async fn sockets_of_an_allowed_folder_are_connected_to() {
    let folder = Folder::new();
    let socket = UnixListener::bind(folder.path("in/db")).unwrap();
    let (policy, anna) = (folder.policy(), identity("anna", &["forward:connect"]));
    let mut made = policy.connect(&anna, &unix(folder.path("in/db"))).await.unwrap();
    socket.accept().unwrap();
    assert_eq!(made.read(&mut [0]).await.unwrap(), 0);

    fs::write(folder.path("in/file"), "").unwrap();
    for (name, expected) in
        [("in/file", io::ErrorKind::ConnectionRefused), ("in/none", io::ErrorKind::NotFound)]
    {
        let error = policy.connect(&anna, &unix(folder.path(name))).await.unwrap_err();
        assert_eq!(error.io_kind(), Some(expected), "{name}: {error}");
    }
}

#[tokio::test]
async fn no_path_leads_out_of_an_allowed_folder() {
    let folder = Folder::new();
    let _secret = UnixListener::bind(folder.path("out/secret")).unwrap();
    symlink(folder.path("out/secret"), folder.path("in/link")).unwrap();
    symlink(folder.path("out"), folder.path("in/folder")).unwrap();
    let everything = Rule { connect: destinations(&["*:*"]), ..Rule::default() };
    let mut rules = folder.policy().settings().rules.clone();
    rules.push(everything);
    let policy = Policy::new(settings(rules));
    let anna = identity("anna", &["*"]);
    for path in [
        folder.path("out/secret"),
        folder.path("in/link"),
        folder.path("in/../out/secret"),
        folder.path("in/folder/secret"),
        folder.path("in/./link"),
        PathBuf::from(format!("/{}", folder.path("in/link").display())),
        "in/link".into(),
        "".into(),
        "/".into(),
        "*".into(),
        "/proc/self/fd/0".into(),
        folder.path(&format!("in/{}", "a".repeat(200))),
        "/tmp/nul\0in".into(),
    ] {
        let refused = policy.connect(&anna, &unix(&path)).await.unwrap_err();
        assert!(refused.is_refusal(), "{}: {refused}", path.display());
    }
}

#[tokio::test]
async fn a_link_to_what_is_allowed_as_well_is_followed() {
    let folder = Folder::new();
    let _socket = UnixListener::bind(folder.path("in/db")).unwrap();
    symlink(folder.path("in/db"), folder.path("in/link")).unwrap();
    let policy = folder.policy();
    let link = unix(folder.path("in/link"));
    policy.connect(&identity("anna", &["forward"]), &link).await.unwrap();
    // The grant has to cover both, too.
    let grant = format!("forward:connect:{}", folder.path("in/link").display());
    let refused = policy.connect(&identity("anna", &[&grant]), &link).await.unwrap_err();
    assert!(refused.is_refusal(), "{refused}");
}

#[tokio::test]
async fn a_socket_that_listens_is_the_accounts_own_and_goes_with_it() {
    let folder = Folder::new();
    let (policy, anna) = (folder.policy(), identity("anna", &["forward:listen"]));
    let path = folder.path("in/app");
    let listener = policy.listen(&anna, &unix(&path)).await.unwrap();
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o600);
    assert_eq!(listener.local().unwrap(), Peer::Unix(path.clone()));

    let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut accepted = listener.accept().await;
    client.write_all(b"hello").await.unwrap();
    let mut read = [0; 5];
    accepted.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hello");

    // What is there stays there.
    let error = policy.listen(&anna, &unix(&path)).await.unwrap_err();
    assert_eq!(error.io_kind(), Some(io::ErrorKind::AddrInUse));
    drop(listener);
    assert!(!path.exists());

    // The file of another in its place is not removed.
    let listener = policy.listen(&anna, &unix(&path)).await.unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    drop(listener);
    assert!(path.exists());
}

#[tokio::test]
async fn nobody_listens_where_others_could_exchange_the_socket() {
    let folder = Folder::new();
    let (policy, anna) = (folder.policy(), identity("anna", &["*"]));
    let mode = |mode| fs::set_permissions(folder.path("in"), fs::Permissions::from_mode(mode));
    for (bits, expected) in [(0o777, false), (0o770, false), (0o1777, true), (0o755, true)] {
        mode(bits).unwrap();
        let listener = policy.listen(&anna, &unix(folder.path("in/app"))).await;
        assert_eq!(listener.is_ok(), expected, "{bits:o}: {listener:?}");
    }
    symlink(folder.path("out"), folder.path("in/folder")).unwrap();
    symlink(folder.path("out/new"), folder.path("in/link")).unwrap();
    for name in ["in/folder/app", "in/../out/app", "out/app"] {
        let refused = policy.listen(&anna, &unix(folder.path(name))).await.unwrap_err();
        assert!(refused.is_refusal(), "{name}: {refused}");
    }
    // A link at the end is not followed.
    let error = policy.listen(&anna, &unix(folder.path("in/link"))).await.unwrap_err();
    assert_eq!(error.io_kind(), Some(io::ErrorKind::AddrInUse));
    assert!(!folder.path("out/new").exists());
}

#[tokio::test]
async fn who_has_another_account_has_no_unix_sockets() {
    let folder = Folder::new();
    let _socket = UnixListener::bind(folder.path("in/db")).unwrap();
    let settings = (*folder.policy().settings()).clone();
    let policy = Policy::unix_for(settings, |caller| caller.name == "bert");
    let (anna, bert) = (identity("anna", &["*"]), identity("bert", &["*"]));
    let refused = policy.connect(&anna, &unix(folder.path("in/db"))).await.unwrap_err();
    assert!(matches!(refused, NetworkError::Refused(Refusal::NoUnix)));
    let refused = policy.listen(&anna, &unix(folder.path("in/new"))).await.unwrap_err();
    assert!(matches!(refused, NetworkError::Refused(Refusal::NoUnix)));
    policy.connect(&bert, &unix(folder.path("in/db"))).await.unwrap();
}
