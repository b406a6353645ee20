//! The operations on a node without an endpoint.

mod access;
mod browsing;
mod exec;
mod git;
mod log;
mod sessions;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use alknet_call::{
    CallAdapter, CallError, CallLimits, ErrorCode, Execution, OperationRegistry, Peers, Request,
};
use alknet_core::{
    Access, Alpn, Audit, AuditEvent, AuditSink, AuthContext, Credential, Dispatcher,
    HandlerRegistry, Identity, Limits, NodeId, Scopes, TransportKind,
};
use alknet_git::GitServer;
use alknet_host::{Account, Accounts};
use alknet_vault::{Mnemonic, Purpose, Vault};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Parts, mount};
use crate::{
    certificates::{Certificates, Source},
    chain::ChainProvider,
    home::Home,
    store::{By, NewToken, PeerChange, Store},
};

/// What was recorded.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Log {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// A node's operations, and what they work on.
struct Rig {
    _folder: TempDir,
    home: Home,
    store: Store,
    registry: OperationRegistry,
    dispatcher: Dispatcher,
    git: GitServer,
    log: Log,
}

impl Rig {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("home"))).unwrap();
        let store = Store::open(&home).await.unwrap();
        let log = Log::default();
        let registry = OperationRegistry::new(Audit::new(log.clone()), []).unwrap();
        let peers = Peers::new();
        let mut handlers = HandlerRegistry::new();
        let call = CallAdapter::new(registry.clone(), CallLimits::default(), peers.clone());
        handlers.register(call, Access::ScopeOr(&["git"])).unwrap();
        let dispatcher = Dispatcher::new(handlers, Limits::default(), Audit::new(log.clone()));
        let (git, keeper) = git::hosting(&folder.path().join("repos"), Audit::new(log.clone()));
        let parts = Parts {
            home: home.clone(),
            store: store.clone(),
            identities: Arc::new(ChainProvider::new(vec![store.source()])),
            certificates: Arc::new(certificates(&home)),
            dispatcher: dispatcher.clone(),
            peers,
            accounts: Accounts::own(account(folder.path())),
            git: git.clone(),
            keeper,
            id: NodeId::from_bytes([7; 32]),
            name: "testing".into(),
            address: SocketAddr::from(([127, 0, 0, 1], 4433)),
            started: Instant::now(),
        };
        mount(&registry, parts).unwrap();
        Self { _folder: folder, home, store, registry, dispatcher, git, log }
    }

    /// Adds a peer as the owner does; gives its id.
    async fn peer(&self, name: &str, scopes: &str) -> String {
        let scopes: Scopes = scopes.parse().unwrap();
        let change = PeerChange { scopes: Some(&scopes), ..PeerChange::default() };
        self.store.add_peer(name, change).await.unwrap();
        self.store.peer(name).await.unwrap().unwrap().id
    }

    /// Makes a token as the owner does; gives its id.
    async fn token(&self, peer: &str) -> String {
        let new = NewToken { by: By::OWNER, name: "t", peer, scopes: None, lifetime: None };
        self.store.create_token(new).await.unwrap().1.id
    }

    fn start(
        &self,
        who: &AuthContext,
        operation: &str,
        input: Value,
    ) -> Result<Execution, CallError> {
        self.registry.start(Request::new(operation, who.clone()).input(input))
    }

    async fn call(
        &self,
        who: &AuthContext,
        operation: &str,
        input: Value,
    ) -> Result<Value, CallError> {
        let output = self.start(who, operation, input)?.output().await?;
        Ok(serde_json::from_str(output.get()).unwrap())
    }

    #[track_caller]
    fn recorded(&self, event: &str) -> AuditEvent {
        let log = self.log.0.lock().unwrap();
        let found = log.iter().rfind(|entry| entry.event == event);
        found.unwrap_or_else(|| panic!("{event} is not in the log: {log:?}")).clone()
    }
}

fn certificates(home: &Home) -> Certificates {
    let phrase = format!("{} about", ["abandon"; 11].join(" "));
    let vault = Vault::from_mnemonic(&Mnemonic::parse(&phrase).unwrap(), "");
    let source = Source::SelfSigned { names: vec!["localhost".into()] };
    Certificates::open(home, source, vault.key(Purpose::WebCertificate).unwrap()).unwrap()
}

/// The account of this process, with a shell and a home that hold no surprises.
fn account(home: &std::path::Path) -> Account {
    let mut account = Account::current().unwrap();
    account.home = home.into();
    account.shell = "/bin/sh".into();
    account
}

/// Somebody with an id and scopes.
fn caller(id: &str, name: &str, scopes: &str) -> AuthContext {
    let scopes: Scopes = scopes.parse().unwrap();
    let identity = Identity::new(id, name, scopes, Credential::Token("5f2a".into()));
    let alpn = Alpn::service("call").unwrap();
    let anybody = AuthContext::anonymous(alpn, TransportKind::Memory, None);
    AuthContext { identity: Some(Arc::new(identity)), ..anybody }
}

/// Somebody whose peer is of no interest.
fn with(scopes: &str) -> AuthContext {
    caller("0a0b0c", "somebody", scopes)
}

/// Every operation of a node.
const ALL: [&str; 32] = [
    "audit/tail",
    "audit/verify",
    "exec/run",
    "git/archive",
    "git/blob",
    "git/configure",
    "git/create",
    "git/delete",
    "git/diff",
    "git/events",
    "git/gc",
    "git/log",
    "git/mirror",
    "git/refs",
    "git/rename",
    "git/repos",
    "git/show",
    "git/tree",
    "node/call-session",
    "node/end-session",
    "node/sessions",
    "node/status",
    "peers/add",
    "peers/explain",
    "peers/list",
    "peers/remove",
    "peers/update",
    "services/list",
    "tokens/create",
    "tokens/link",
    "tokens/list",
    "tokens/revoke",
];

#[tokio::test]
async fn what_is_not_allowed_does_not_exist() {
    let rig = Rig::new().await;
    let unknown = rig.start(&with("ssh"), "no/such", json!({})).unwrap_err();
    for name in ALL.into_iter().filter(|name| !name.starts_with("services/")) {
        let namespace = name.split('/').next().unwrap();
        for who in ["ssh", "call:other/thing", &format!("call:{namespace}")] {
            let error = rig.start(&with(who), name, json!({ "no": "input" })).unwrap_err();
            assert_eq!(error, unknown, "{name} for {who}");
        }
    }
    // A grant of all calls is none to run commands.
    assert_eq!(rig.start(&with("call"), "exec/run", json!({})).unwrap_err(), unknown);
    assert_eq!(rig.start(&with("exec"), "exec/run", json!({})).unwrap_err(), unknown);
    let error = rig.start(&with("call,exec"), "exec/run", json!({})).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidInput);
}

#[tokio::test]
async fn every_member_is_described() {
    fn undescribed(at: &str, schema: &Value, found: &mut Vec<String>) {
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            if member.is_object() && member.get("description").is_none() {
                found.push(format!("{at}.{name}"));
            }
        }
        match schema {
            Value::Object(members) => {
                members
                    .iter()
                    .for_each(|(name, it)| undescribed(&format!("{at}/{name}"), it, found));
            }
            Value::Array(all) => all.iter().for_each(|it| undescribed(at, it, found)),
            _ => {}
        }
    }
    let rig = Rig::new().await;
    let all = rig.registry.visible(&with("*"));
    let names: Vec<_> = all.iter().map(|it| it.spec().name.to_string()).collect();
    for name in ALL {
        assert!(names.iter().any(|it| it == name), "{name} is not there: {names:?}");
    }
    let mut found = Vec::new();
    for operation in all.iter().filter(|it| it.spec().name.namespace() != "services") {
        let spec = operation.spec();
        assert!(!spec.description.is_empty(), "{}", spec.name);
        undescribed(&format!("{} input", spec.name), spec.input.json(), &mut found);
        undescribed(&format!("{} output", spec.name), spec.output.json(), &mut found);
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test]
async fn a_node_tells_how_it_is() {
    let rig = Rig::new().await;
    let status = rig.call(&with("call:node/status"), "node/status", Value::Null).await.unwrap();
    assert_eq!(status["node"], NodeId::from_bytes([7; 32]).to_string());
    assert_eq!(status["services"], json!(["alknet/call"]));
    assert_eq!(status["sessions"]["total"], 0);
    assert_eq!(status["certificate"]["self_signed"], true);
    let checks = status["checks"].as_array().unwrap();
    assert!(!checks.is_empty() && checks.iter().all(|check| check["ok"] == true), "{status}");
}
