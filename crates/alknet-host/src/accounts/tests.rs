use alknet_core::Credential;

use super::*;

fn own() -> Account {
    Account { name: "node".into(), ..Account::current().unwrap() }
}

fn identity(id: &str, name: &str, scopes: &str) -> Identity {
    Identity::new(id, name, scopes.parse().unwrap(), Credential::Token("5f2a".into()))
}

fn mapped(entries: &[(&str, &[&str])]) -> Accounts {
    let entries = entries.iter().map(|(key, names)| (*key, names.iter().copied()));
    Accounts::mapped(own(), entries.collect())
}

const BOB: &str = "0a1b2c3d4e5f";

#[test]
fn the_owners_keys_have_the_nodes_account() {
    let mapping = AccountMap::from_iter([("*", ["guest"])]).with_owner("owner");
    let accounts = Accounts::mapped(own(), mapping);
    let key = |id: &str, name: &str| {
        let credential = Credential::Key(alknet_core::KeyFingerprint::OpenSsh([7; 32]));
        accounts.names(&Identity { credential, ..identity(id, name, "ssh") })
    };
    assert_eq!(key("owner", "owner"), ["node", "guest"]);
    // A name is nothing, and a token may be one for a part.
    assert_eq!(key("p1", "owner"), ["guest"]);
    assert_eq!(accounts.names(&identity("owner", "owner", "ssh")), ["guest"]);
}

#[test]
fn who_gets_which_accounts() {
    let accounts = mapped(&[
        ("alice", &["alice", "www-data"]),
        (BOB, &["bob"]),
        ("nobody", &[]),
        ("*", &["guest"]),
    ]);
    for (id, name, scopes, expected) in [
        ("p1", "alice", "ssh", &["alice", "www-data"][..]),
        // The id comes before the name: a name can be taken by another.
        (BOB, "alice", "ssh", &["bob"]),
        // What has the form of an id is none for whoever is called that, and no name.
        ("p4", BOB, "ssh", &["guest"]),
        ("alice", "dave", "ssh", &["guest"]),
        ("p2", "carol", "ssh", &["guest"]),
        ("p3", "nobody", "*", &[]),
        ("owner", "owner", "*", &["node", "guest"]),
        // Not everything, whoever it is.
        ("owner", "owner", "ssh,call", &["guest"]),
        // An entry replaces what somebody has by their scopes.
        ("p1", "alice", "*", &["alice", "www-data"]),
    ] {
        assert_eq!(accounts.names(&identity(id, name, scopes)), expected, "{id} {name} {scopes}");
    }
}

#[tokio::test]
async fn without_a_mapping_root_serves_nobody_but_who_may_do_everything() {
    let accounts = mapped(&[]);
    let peer = identity("p1", "alice", "ssh,sftp,call");
    for name in [None, Some("node"), Some("root"), Some("nobody")] {
        let refused = accounts.of(&peer, name).await.unwrap_err();
        assert!(matches!(refused, AccountRefusal::NotMapped), "{refused}");
    }
    let owner = identity("owner", "owner", "*");
    assert_eq!(accounts.of(&owner, None).await.unwrap(), own());
    assert_eq!(accounts.of(&owner, Some("node")).await.unwrap(), own());
    let refused = accounts.of(&owner, Some("nobody")).await.unwrap_err();
    assert!(matches!(refused, AccountRefusal::NotTheirs(_)), "{refused}");
}

#[tokio::test]
async fn one_account_is_for_all_and_no_other_is() {
    let accounts = Accounts::own(own());
    let peer = identity("p1", "alice", "ssh");
    assert_eq!(accounts.of(&peer, None).await.unwrap(), own());
    assert_eq!(accounts.of(&peer, Some("node")).await.unwrap(), own());
    assert!(accounts.serve("node").is_ok());
    let refused = accounts.of(&peer, Some("root")).await.unwrap_err();
    assert_eq!(refused.to_string(), "login name \"root\" is not the node's account");
    assert!(accounts.serve(&"x".repeat(1000)).unwrap_err().to_string().len() < 100);
    // There is nothing to map.
    accounts.set(AccountMap::from_iter([("alice", ["root"])]));
    assert!(accounts.of(&peer, Some("root")).await.is_err());
}

#[tokio::test]
async fn another_mapping_holds_at_once() {
    let accounts = mapped(&[("alice", &["node"])]);
    let clone = accounts.clone();
    let peer = identity("p1", "alice", "ssh");
    assert!(accounts.of(&peer, Some("node")).await.is_ok());
    clone.set(AccountMap::default());
    assert!(accounts.of(&peer, Some("node")).await.is_err());
}

#[tokio::test]
async fn an_account_that_is_not_there_is_refused() {
    let accounts = mapped(&[("alice", &["no-such-account", "a\0b"])]);
    let peer = identity("p1", "alice", "ssh");
    let refused = accounts.of(&peer, None).await.unwrap_err();
    assert_eq!(refused.to_string(), "the machine has no account \"no-such-account\"");
    assert!(accounts.of(&peer, Some("a\0b")).await.is_err());
}

/// What only root can do; the whole program proves the rest.
#[tokio::test]
async fn a_program_has_the_rights_of_its_account_alone() {
    if !Accounts::is_privileged() {
        let account = User::from_name("nobody").unwrap().unwrap();
        let switch = Switch::to(&account).unwrap();
        let account = Account::from_user(account, Some(switch));
        let refused = account.shell_command("id").output().await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        return;
    }
    let mut account = mapped(&[("alice", &["nobody"])])
        .of(&identity("p1", "alice", "ssh"), Some("nobody"))
        .await
        .unwrap();
    account.shell = "/bin/sh".into();
    let line = "id -u; id -g; id -G; umask; ls /proc/self/fd | tr '\\n' ' '; \
                grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status | sort -u -k2";
    let output = account.shell_command(line).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // `ls` itself has the folder open as 3.
    let expected = ["65534", "65534", "65534", "0022", "0 1 2 3 CapPrm:\t0000000000000000"];
    assert_eq!(lines, expected, "{text}");
}
