//! A node in memory with operations to call.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use alknet_call::{
    Access as CallAccess, CallError, Context, Items, Nothing, Operation, OperationRegistry,
};
use alknet_core::{
    Access, Alpn, Audit, AuditEvent, AuditSink, AuthContext, Connection, Dispatcher,
    HandlerRegistry, Limits, NodeIdentity, SingleStream, Stream, TransportKind,
};
use alknet_http::{HttpAdapter, api};
use alknet_testing::{
    identities::{Identities, identity},
    memory,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinSet};

pub(crate) const HOST: &str = "node.example";
/// Somebody who may call everything.
pub(crate) const TOKEN: &str = "alk_of-alice";
/// The session cookie of the same person's browser.
pub(crate) const SESSION: &str = "alk_session-of-alice";
/// Somebody who may call the namespace `math` alone.
pub(crate) const POOR: &str = "alk_of-bob";
/// Somebody who may call nothing.
pub(crate) const STRANGE: &str = "alk_of-carol";
/// Where pages may call from.
pub(crate) const APP: &str = "https://app.example";

#[derive(Debug, Deserialize, JsonSchema)]
struct Sum {
    numbers: Vec<i64>,
    /// Added to the others.
    extra: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Mixed {
    text: String,
    whole: Option<u32>,
    half: Option<f64>,
    flag: Option<bool>,
    mode: Option<Mode>,
    names: Option<Vec<String>>,
    deep: Option<Deep>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Fast,
    VerySlow,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Deep {
    depth: u8,
    within: Option<Box<Self>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Count {
    to: u32,
    /// Fails behind the last.
    #[serde(default)]
    fails: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Login {
    #[schemars(extend("format" = "password"))]
    secret: Option<String>,
}

/// What the operations have done.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) mutations: AtomicUsize,
    /// Operations that run and will not end by themselves.
    pub(crate) hanging: AtomicUsize,
    /// How many have begun so far.
    pub(crate) begun: AtomicUsize,
    pub(crate) changed: Notify,
}

impl Done {
    /// Waits until so many operations hang.
    pub(crate) async fn hanging(&self, count: usize) {
        let until = async {
            loop {
                let changed = self.changed.notified();
                if self.hanging.load(Ordering::SeqCst) == count {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(90), until).await.expect("nothing changed");
    }

    fn count(self: &Arc<Self>) -> Hanging {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.hanging.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
        Hanging(self.clone())
    }
}

/// An operation that runs.
struct Hanging(Arc<Done>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.hanging.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<std::sync::Mutex<Vec<AuditEvent>>>);

impl AuditSink for Log {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Log {
    /// What was refused so far, which is forgotten thereby.
    pub(crate) fn refused(&self) -> Vec<(Option<String>, Option<String>)> {
        let events = std::mem::take(&mut *self.0.lock().unwrap());
        let refused = events.into_iter().filter(|event| event.event == AuditEvent::REFUSED);
        refused.map(|event| (event.subject, event.reason)).collect()
    }
}

pub(crate) fn operations(done: &Arc<Done>) -> Vec<Operation> {
    let [mutating, waiting, hanging] = [(); 3].map(|()| done.clone());
    let all = [
        Operation::query("math/sum", async |_, sum: Sum| {
            let numbers = sum.numbers.iter().chain(&sum.extra);
            let total = numbers.copied().try_fold(0_i64, i64::checked_add);
            total.ok_or_else(|| CallError::declared("OVERFLOW", "the sum is too large"))
        })
        .map(|it| it.describe("Adds numbers.").error("OVERFLOW", "The sum has no room")),
        Operation::query("math/mixed", async |_, mixed: Mixed| Ok(mixed)),
        Operation::mutation("math/store", move |_, value: Value| {
            let done = mutating.clone();
            async move {
                done.mutations.fetch_add(1, Ordering::SeqCst);
                Ok(value)
            }
        }),
        Operation::query("admin/secret", async |_, Nothing {}| Ok("the secret")),
        Operation::mutation("admin/erase", async |_, Nothing {}| Ok(())),
        Operation::query("admin/login", async |_, login: Login| Ok(login.secret.is_some())),
        Operation::query("wait/query", move |_, Nothing {}| {
            let hanging = waiting.count();
            async move {
                let _hanging = hanging;
                std::future::pending::<Result<(), CallError>>().await
            }
        }),
        Operation::subscription("wait/items", move |_, Nothing {}, items: Items<u32>| {
            let hanging = hanging.count();
            async move {
                let _hanging = hanging;
                items.send(0).await?;
                std::future::pending().await
            }
        }),
        Operation::subscription("count/up", count).map(Operation::resumable),
        Operation::subscription("count/flood", async |_, Nothing {}, items: Items<String>| {
            loop {
                items.send("flood ".repeat(1000)).await?;
            }
        }),
        Operation::query("fail/forbidden", async |_, Nothing {}| {
            Err::<(), _>(CallError::forbidden("not this one"))
        }),
        Operation::query("fail/unavailable", async |_, Nothing {}| {
            Err::<(), _>(CallError::unavailable("come back").with_details(json!({ "a": 1 })))
        }),
        Operation::query("fail/panic", async |_, Nothing {}| -> Result<(), CallError> {
            panic!("on purpose")
        }),
        Operation::query("fail/undeclared", async |_, Nothing {}| {
            Err::<(), _>(CallError::declared("SURPRISE", "never told"))
        }),
        Operation::query("public/hello", async |_, Nothing {}| Ok("hello"))
            .map(|it| it.access(CallAccess::Public)),
    ];
    all.into_iter().map(Result::unwrap).collect()
}

async fn count(context: Context, count: Count, items: Items<u32>) -> Result<(), CallError> {
    let after = context.after().map(|after| after.parse::<u32>());
    let begin = match after {
        Some(Ok(after)) => after + 1,
        Some(Err(_)) => return Err(CallError::invalid_input("no such event")),
        None => 0,
    };
    for n in begin..count.to {
        items.send_event(n.to_string(), n).await?;
    }
    if count.fails { Err(CallError::unavailable("no more")) } else { Ok(()) }
}

pub(crate) struct Node {
    pub(crate) done: Arc<Done>,
    pub(crate) log: Log,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) registry: OperationRegistry,
}

impl Node {
    pub(crate) fn new() -> Self {
        let alice = || identity("alice", &["call"]);
        let identities = Arc::new(
            Identities::new()
                .with_token(TOKEN, alice())
                .with_token(SESSION, alice())
                .with_token(POOR, identity("bob", &["call:math/*"]))
                .with_token(STRANGE, identity("carol", &["echo"])),
        );
        let (log, done) = (Log::default(), Arc::new(Done::default()));
        let audit = Audit::new(log.clone());
        let registry = OperationRegistry::new(audit.clone(), operations(&done)).unwrap();
        let services = Dispatcher::new(HandlerRegistry::new(), Limits::default(), audit);
        let node = Arc::new(NodeIdentity::from_seed(&[100; 32]).unwrap());
        let mut settings = api::Settings::default();
        settings.cors_origins = vec![APP.to_owned()];
        let adapter = HttpAdapter::builder(services.clone(), identities, node)
            .public(api::preflights(&settings))
            .private(api::routes(registry.clone(), settings))
            .build()
            .unwrap();
        let dispatcher = services.extend(adapter, Access::Public).unwrap();
        Self { done, log, dispatcher, registry }
    }

    /// A connection that negotiated `protocol`; the client's end.
    pub(crate) fn connect(&self, protocol: &str) -> Connection {
        let (kind, (client, server)) = match protocol {
            "h3" => (TransportKind::Quic, memory::pair_of_kind(TransportKind::Quic)),
            _ => (TransportKind::Tls, tls_pair()),
        };
        let peer: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        let auth = AuthContext::anonymous(Alpn::new(protocol).unwrap(), kind, Some(peer));
        self.dispatcher.admit(auth).unwrap().start(server);
        client
    }

    /// Sends a request on a connection of its own, which ends with the client.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Exchange {
        let stream = self.connect("http/1.1").open_bi().await.unwrap();
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(driver.await) });
        let response = sender.send_request(request).await.unwrap();
        Exchange { response, _tasks: tasks }
    }

    /// The whole answer to a request of somebody with this token.
    pub(crate) async fn ask(
        &self,
        token: &str,
        request: http::request::Builder,
        body: &str,
    ) -> Answer {
        self.send(by(token, request, body)).await.whole().await
    }

    /// The answer to `POST` of JSON by somebody who may call everything.
    pub(crate) async fn post(&self, path: &str, input: Value) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.ask(TOKEN, request, &input.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(TOKEN, Request::get(path), "").await
    }
}

/// A request by somebody with this token.
pub(crate) fn by(token: &str, request: http::request::Builder, body: &str) -> Request<Full<Bytes>> {
    let request = request.header("host", HOST).header("authorization", format!("Bearer {token}"));
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

/// An answer that has begun.
pub(crate) struct Exchange {
    pub(crate) response: Response<Incoming>,
    _tasks: JoinSet<()>,
}

impl Exchange {
    pub(crate) async fn whole(self) -> Answer {
        let (parts, body) = self.response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer(Response::from_parts(parts, String::from_utf8(body.to_vec()).unwrap()))
    }

    /// The next piece of the body; `None` at its end, and an error where it is cut.
    pub(crate) async fn piece(&mut self) -> Option<Result<String, hyper::Error>> {
        let frame = self.response.body_mut().frame().await?;
        Some(frame.map(|frame| String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()))
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Response<String>);

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        self.0.body()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.0.body()).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Everything but the time of day.
    pub(crate) fn bytes(&self) -> String {
        let mut headers = self.0.headers().clone();
        headers.remove("date");
        format!("{} {headers:?} {}", self.0.status(), self.0.body())
    }

    /// Whether nobody is told that there is anything but an nginx.
    pub(crate) fn is_decoy(&self) -> bool {
        self.status() == 404 && self.header("server") == Some("nginx")
    }
}

fn tls_pair() -> (Connection, Connection) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let (client, server) = (Stream::from_bistream(client), Stream::from_bistream(server));
    let client = SingleStream::dialled(TransportKind::Tls, client);
    let server = SingleStream::accepted(TransportKind::Tls, server);
    (Connection::new(client), Connection::new(server))
}
