//! Nobody gets more by an operation than they have.

use super::*;

/// Of everything, but for SSH.
const ADMIN: &str = "call,git";

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ laptop";

async fn rig() -> (Rig, AuthContext) {
    let rig = Rig::new().await;
    let id = rig.peer("admin", ADMIN).await;
    rig.peer("root", "*").await;
    rig.peer("shell", "ssh").await;
    rig.peer("reader", "git:read").await;
    (rig, caller(&id, "admin", ADMIN))
}

impl Rig {
    #[track_caller]
    fn scopes_of(&self, list: &Value, name: &str) -> Value {
        let peers = list["peers"].as_array().unwrap();
        peers
            .iter()
            .find(|peer| peer["name"] == name)
            .map_or(Value::Null, |it| it["scopes"].clone())
    }

    /// The call is refused and nothing has changed.
    async fn refuses(&self, who: &AuthContext, operation: &str, input: Value) {
        let everything = with("*");
        let state = async || {
            let peers = self.call(&everything, "peers/list", Value::Null).await.unwrap();
            let tokens = self.call(&everything, "tokens/list", json!({ "all": true })).await;
            (peers, tokens.unwrap())
        };
        let before = state().await;
        let outcome = self.call(who, operation, input.clone()).await;
        let error = outcome.expect_err(&format!("{operation} {input}"));
        assert_eq!(error.code, ErrorCode::Forbidden, "{operation} {input}: {error}");
        assert_eq!(state().await, before, "{operation} {input}");
    }
}

#[tokio::test]
async fn a_new_peer_gets_no_more_than_who_adds_it_has() {
    let (rig, admin) = rig().await;
    for scopes in [json!(["*"]), json!(["ssh"]), json!(["git", "ssh:shell"]), json!(["c*"])] {
        rig.refuses(&admin, "peers/add", json!({ "name": "new", "scopes": scopes })).await;
    }
    let new = json!({ "name": "new", "scopes": ["git:read", "call:peers/add"], "keys": [KEY] });
    assert_eq!(rig.call(&admin, "peers/add", new.clone()).await.unwrap()["new_keys"], 1);
    let added = rig.recorded("peer-added");
    assert_eq!(added.identity, admin.identity.as_ref().map(|who| who.id.clone()));
    assert_eq!(added.name.as_deref(), Some("new"));
    assert_eq!(rig.recorded("key-added").transport, Some("memory"));
    let again = rig.call(&admin, "peers/add", new).await.unwrap_err();
    assert_eq!(again.code.as_str(), "TAKEN");
}

#[tokio::test]
async fn a_peer_is_given_no_more_than_who_changes_it_has() {
    let (rig, admin) = rig().await;
    for scopes in [json!(["*"]), json!(["git", "ssh"])] {
        rig.refuses(&admin, "peers/update", json!({ "name": "reader", "scopes": scopes })).await;
        // Nor oneself.
        rig.refuses(&admin, "peers/update", json!({ "name": "admin", "scopes": scopes })).await;
    }
    let wider = json!({ "name": "reader", "scopes": ["git"] });
    rig.call(&admin, "peers/update", wider).await.unwrap();
    let list = rig.call(&admin, "peers/list", Value::Null).await.unwrap();
    assert_eq!(rig.scopes_of(&list, "reader"), json!(["git"]));
}

#[tokio::test]
async fn a_key_is_not_put_under_somebody_who_may_do_more() {
    let (rig, admin) = rig().await;
    for name in ["owner", "root", "shell"] {
        rig.refuses(&admin, "peers/update", json!({ "name": name, "add_keys": [KEY] })).await;
        let authority = json!([{ "key": KEY, "principals": ["me"] }]);
        let trust = json!({ "name": name, "add_authorities": authority });
        rig.refuses(&admin, "peers/update", trust).await;
    }
}

#[tokio::test]
async fn who_may_do_more_is_neither_narrowed_nor_removed() {
    let (rig, admin) = rig().await;
    let key = json!({ "name": "root", "add_keys": [KEY] });
    rig.call(&with("*"), "peers/update", key).await.unwrap();
    rig.refuses(&admin, "peers/update", json!({ "name": "root", "scopes": ["git"] })).await;
    rig.refuses(&admin, "peers/update", json!({ "name": "root", "remove_keys": [KEY] })).await;
    for name in ["owner", "root", "shell"] {
        rig.refuses(&admin, "peers/remove", json!({ "name": name })).await;
    }
    rig.call(&admin, "peers/remove", json!({ "name": "reader" })).await.unwrap();
    assert_eq!(rig.recorded("peer-removed").name.as_deref(), Some("reader"));
    let unknown = rig.call(&admin, "peers/remove", json!({ "name": "reader" })).await.unwrap_err();
    assert_eq!(unknown.code.as_str(), "NO_SUCH_PEER");
}

#[tokio::test]
async fn a_key_is_no_name_of_a_file() {
    let (rig, admin) = rig().await;
    let file = rig.home.path("key.pub");
    std::fs::write(&file, KEY).unwrap();
    let new = json!({ "name": "new", "scopes": ["git"], "keys": [file] });
    let error = rig.call(&admin, "peers/add", new).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidInput, "{error}");
    let remove = json!({ "name": "reader", "remove_keys": [file] });
    let error = rig.call(&admin, "peers/update", remove).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidInput, "{error}");
}

#[tokio::test]
async fn a_token_may_do_no_more_than_who_makes_it() {
    let (rig, admin) = rig().await;
    for token in [
        json!({ "peer": "root" }),
        json!({ "peer": "root", "scopes": ["git"] }),
        json!({ "peer": "owner", "scopes": ["git:read"] }),
        json!({ "scopes": ["ssh"] }),
        json!({ "scopes": ["*"] }),
    ] {
        rig.refuses(&admin, "tokens/create", token).await;
    }
    let made = rig.call(&admin, "tokens/create", json!({ "scopes": ["git"] })).await.unwrap();
    assert!(made["token"].as_str().unwrap().starts_with("alk_"), "{made}");
    assert_eq!((&made["peer"], &made["scopes"]), (&json!("admin"), &json!(["git"])));
    let entry = rig.recorded("token-created");
    assert_eq!(entry.identity, admin.identity.as_ref().map(|who| who.id.clone()));
    let log = format!("{:?}", rig.log.0.lock().unwrap());
    assert!(!log.contains(made["token"].as_str().unwrap()), "the secret is in the log");
}

/// What it grants does not grow with its peer.
#[tokio::test]
async fn a_token_stays_within_who_made_it() {
    let (rig, admin) = rig().await;
    let made = rig.call(&admin, "tokens/create", json!({ "peer": "reader" })).await.unwrap();
    let wider = json!({ "name": "reader", "scopes": ["*"] });
    rig.call(&with("*"), "peers/update", wider).await.unwrap();
    let token = alknet_core::Secret::new(made["token"].as_str().unwrap());
    let holder = rig.store.source().by_token(&token).await.unwrap().unwrap();
    assert_eq!(holder.scopes.to_string(), "call,git");
}

#[tokio::test]
async fn a_key_stays_within_who_added_it() {
    let (rig, admin) = rig().await;
    let added = json!({ "name": "reader", "add_keys": [KEY] });
    rig.call(&admin, "peers/update", added).await.unwrap();
    let wider = json!({ "name": "reader", "scopes": ["*"] });
    rig.call(&with("*"), "peers/update", wider).await.unwrap();
    let key = crate::peer_key::PeerKey::parse(KEY).unwrap().fingerprint;
    let holder = rig.store.source().by_key(&key).await.unwrap().unwrap();
    assert_eq!(holder.scopes.to_string(), "call,git");
}

/// The store is asked first, so a key there is taken from whoever has it elsewhere.
#[tokio::test]
async fn nobody_is_locked_out_by_their_own_key() {
    let (rig, admin) = rig().await;
    let root = json!({ "name": "root", "add_keys": [KEY] });
    rig.call(&with("*"), "peers/update", root).await.unwrap();
    let taken = json!({ "name": "new", "scopes": ["git"], "keys": [KEY] });
    let error = rig.call(&admin, "peers/add", taken).await.unwrap_err();
    assert_eq!(error.code.as_str(), "TAKEN", "{error}");
}

#[tokio::test]
async fn who_came_with_a_token_stays_within_it() {
    let (rig, admin) = rig().await;
    let id = &admin.identity.as_ref().unwrap().id;
    let some = caller(id, "admin", "call:tokens/*,call:peers/*,git:read");
    // Their own peer may do more than the token they came with.
    rig.refuses(&some, "tokens/create", json!({ "scopes": ["git"] })).await;
    rig.refuses(&some, "peers/update", json!({ "name": "admin", "add_keys": [KEY] })).await;
    rig.refuses(&some, "peers/remove", json!({ "name": "admin" })).await;
    let made = rig.call(&some, "tokens/create", json!({})).await.unwrap();
    assert_eq!(made["scopes"], json!(["call:peers/*", "call:tokens/*", "git:read"]));
}

#[tokio::test]
async fn what_may_do_more_is_not_revoked() {
    let (rig, admin) = rig().await;
    for peer in ["owner", "root", "shell"] {
        let id = rig.token(peer).await;
        rig.refuses(&admin, "tokens/revoke", json!({ "id": id })).await;
    }
    let id = rig.token("reader").await;
    rig.call(&admin, "tokens/revoke", json!({ "id": id })).await.unwrap();
    assert_eq!(rig.recorded("token-revoked").subject, Some(id.clone()));
    let ended = rig.call(&admin, "tokens/list", json!({ "all": true })).await.unwrap();
    let tokens = ended["tokens"].as_array().unwrap();
    let revoked = tokens.iter().find(|token| token["id"] == id.as_str()).unwrap();
    assert_eq!(revoked["revoked"]["by"], "admin");
    let unknown = rig.call(&admin, "tokens/revoke", json!({ "id": id })).await.unwrap_err();
    assert_eq!(unknown.code.as_str(), "NO_SUCH_TOKEN");
}

#[tokio::test]
async fn only_who_may_do_everything_signs_in_as_the_owner() {
    let (rig, admin) = rig().await;
    rig.refuses(&admin, "tokens/link", json!({})).await;
    let links = rig.call(&with("*"), "tokens/link", json!({})).await.unwrap();
    let link = links["links"][0].as_str().unwrap();
    assert!(link.starts_with("https://127.0.0.1:4433/alknet/signin/alk_"), "{link}");
}

#[tokio::test]
async fn a_rule_is_explained() {
    let (rig, admin) = rig().await;
    let ask = |action: &str| json!({ "name": "reader", "action": action });
    let report = rig.call(&admin, "peers/explain", ask("git:read:notes")).await.unwrap();
    assert_eq!((&report["allowed"], &report["scope"]), (&json!(true), &json!("git:read")));
    let report = rig.call(&admin, "peers/explain", ask("ssh")).await.unwrap();
    assert_eq!(report["allowed"], false);
    let nobody = json!({ "name": "nobody", "action": "ssh" });
    let error = rig.call(&admin, "peers/explain", nobody).await.unwrap_err();
    assert_eq!(error.code.as_str(), "NOT_EXPLAINED");
}
