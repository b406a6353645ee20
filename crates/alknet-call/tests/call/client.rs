//! A client that loses its connection.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::support::{Alive, Counter, alice, auth, connections};
use alknet_call::{
    Backoff, CallLimits, CallOptions, Client, ConnectError, Context, ErrorCode, Items, Nothing,
    Operation, OperationRegistry, Peer,
};
use alknet_core::{Audit, BoxFuture, Code, Connection, TransportKind};
use futures_util::StreamExt as _;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// A node that can be dialled; its ends of the connections come out.
struct Node {
    registry: OperationRegistry,
    accepted: mpsc::UnboundedSender<Connection>,
    is_down: AtomicBool,
    tries: AtomicUsize,
}

impl Node {
    fn new<const N: usize>(
        operations: [Operation; N],
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Connection>) {
        let registry = OperationRegistry::new(Audit::to_log(), operations).unwrap();
        let (accepted, connections) = mpsc::unbounded_channel();
        let (is_down, tries) = (AtomicBool::new(false), AtomicUsize::new(0));
        (Arc::new(Self { registry, accepted, is_down, tries }), connections)
    }

    fn dial(&self, kind: TransportKind) -> Result<Connection, ConnectError> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) {
            return Err(ConnectError::new("nobody listens"));
        }
        let (near, far) = connections(kind);
        let (_, driver) = Peer::new(
            far.clone(),
            self.registry.clone(),
            auth(Some(alice(&["*"]))),
            CallLimits::default(),
            CancellationToken::new(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        tasks.detach_all();
        self.accepted.send(far).unwrap();
        Ok(near)
    }

    fn client<const N: usize>(self: &Arc<Self>, served: [Operation; N]) -> Client {
        let node = self.clone();
        let connect = move || -> BoxFuture<'static, Result<Connection, ConnectError>> {
            let node = node.clone();
            Box::pin(async move { node.dial(TransportKind::Memory) })
        };
        Client::new(connect, served, Backoff::default()).unwrap()
    }
}

fn hello() -> Operation {
    Operation::query("text/hello", async |_: Context, Nothing {}| Ok("hello")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_connects_again_and_says_again_what_it_serves() {
    let ask = Operation::query("node/ask", async |context: Context, Nothing {}| {
        context.call::<_, String>("page/name", &Nothing {}).await
    });
    let (node, mut accepted) = Node::new([hello(), ask.unwrap()]);
    let name = Operation::query("page/name", async |_: Context, Nothing {}| Ok("page"));
    let client = node.client([name.unwrap()]);
    for _ in 0..3 {
        assert_eq!(client.call::<_, String>("text/hello", &Nothing {}).await.unwrap(), "hello");
        assert_eq!(client.call::<_, String>("node/ask", &Nothing {}).await.unwrap(), "page");
        accepted.recv().await.unwrap().close(Code::SHUTTING_DOWN, "");
        client.peer().await.unwrap().over().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_is_tried_again_and_a_call_is_not() {
    let running = Counter::new();
    let (counted, first) = (running.clone(), Arc::new(AtomicBool::new(true)));
    let stuck = first.clone();
    let once = Operation::query("slow/once", move |_: Context, Nothing {}| {
        let (alive, is_first) = (Alive::new(&counted), stuck.swap(false, Ordering::SeqCst));
        async move {
            if is_first {
                std::future::pending::<()>().await;
            }
            drop(alive);
            Ok("done")
        }
    });
    let (node, mut accepted) = Node::new([once.unwrap()]);
    let client = node.client([]);
    let cut = async |accepted: &mut mpsc::UnboundedReceiver<Connection>| {
        Alive::count(&running, 1).await;
        accepted.recv().await.unwrap().close(Code::SHUTTING_DOWN, "");
    };
    let call = client.call::<_, String>("slow/once", &Nothing {});
    let (outcome, ()) = tokio::join!(call, cut(&mut accepted));
    let error = outcome.unwrap_err();
    assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, false));
    Alive::count(&running, 0).await;
    first.store(true, Ordering::SeqCst);
    let query = client.query::<_, String>("slow/once", &Nothing {});
    let (outcome, ()) = tokio::join!(query, cut(&mut accepted));
    assert_eq!(outcome.unwrap(), "done");
}

#[tokio::test(start_paused = true)]
async fn it_waits_longer_each_time_and_a_call_says_why() {
    let (node, _accepted) = Node::new([hello()]);
    node.is_down.store(true, Ordering::SeqCst);
    let client = node.client([]);
    let error = client.call::<_, String>("text/hello", &Nothing {}).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("nobody listens"), "{error}");
    // 30 seconds hold at most 1 + 8 waits of 0.1, 0.2, 0.4, … seconds, and at least 1 + 7.
    let tries = node.tries.load(Ordering::SeqCst);
    assert!((8..=9).contains(&tries), "{tries} tries");
    node.is_down.store(false, Ordering::SeqCst);
    assert_eq!(client.call::<_, String>("text/hello", &Nothing {}).await.unwrap(), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_goes_on_behind_its_last_event() {
    let count = Operation::subscription(
        "math/count",
        async |context: Context, Nothing {}, items: Items<u64>| {
            let after = context.after().map_or(0, |event| event.parse::<u64>().unwrap() + 1);
            for n in after.. {
                items.send_event(n.to_string(), n).await?;
            }
            Ok(())
        },
    );
    let (node, mut accepted) = Node::new([count.unwrap().resumable()]);
    let client = node.client([]);
    let subscribe = async |options: CallOptions| {
        client.subscribe::<_, u64>("math/count", &Nothing {}, options).await.unwrap()
    };
    let mut items = subscribe(CallOptions::default()).await;
    assert_eq!(items.next().await, Some(Ok(0)));
    assert_eq!(items.next().await, Some(Ok(1)));
    accepted.recv().await.unwrap().close(Code::SHUTTING_DOWN, "");
    while let Some(Ok(_)) = items.next().await {}
    let event = items.event().unwrap().to_owned();
    let next = event.parse::<u64>().unwrap() + 1;
    let mut items = subscribe(CallOptions::default().after(event)).await;
    assert_eq!(items.next().await, Some(Ok(next)));
}

#[tokio::test]
async fn dropping_it_ends_the_connection() {
    let (node, mut accepted) = Node::new([hello()]);
    let client = node.client([]);
    assert_eq!(client.query::<_, String>("text/hello", &Nothing {}).await.unwrap(), "hello");
    drop(client);
    accepted.recv().await.unwrap().closed().await;
}
