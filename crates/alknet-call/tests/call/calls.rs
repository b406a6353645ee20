//! Calls between two ends of one connection, in memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{Alive, Both, Counter, alice, auth, connect, connections, with_operations};
use alknet_call::{
    Access, CallAdapter, CallError, CallLimits, CallOptions, Context, ErrorCode, Items, Kind,
    Nothing, Operation, OperationRegistry, Peer, Peers,
};
use alknet_core::{
    Access as Reach, Action, Audit, Dispatcher, HandlerRegistry, Limits, Scopes, TransportKind,
};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

const KINDS: [TransportKind; 2] = [TransportKind::Memory, TransportKind::Tls];

#[derive(Serialize, Deserialize, JsonSchema)]
struct Pair {
    a: i64,
    b: i64,
}

fn sum() -> Operation {
    Operation::query("math/sum", async |_: Context, Pair { a, b }: Pair| Ok(a + b)).unwrap()
}

fn count() -> Operation {
    Operation::subscription("math/count", async |_: Context, to: u64, items: Items<u64>| {
        for n in 0..to {
            items.send_event(n.to_string(), n).await?;
        }
        Ok(())
    })
    .unwrap()
}

/// Never ends; tells how many of it are running.
fn forever(name: &str, running: &Counter) -> Operation {
    let running = running.clone();
    Operation::mutation(name, move |_: Context, Nothing {}| {
        let alive = Alive::new(&running);
        async move {
            let _alive = alive;
            std::future::pending::<Result<(), CallError>>().await
        }
    })
    .unwrap()
}

#[tokio::test]
async fn a_typed_call_and_its_schema() {
    for kind in KINDS {
        let Both { near, .. } = connect(kind, [sum()], []);
        assert_eq!(near.call::<_, i64>("math/sum", &Pair { a: 2, b: 40 }).await, Ok(42));
        let error = near.call::<_, i64>("math/sum", &json!({ "a": 2, "b": "x" })).await;
        let error = error.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidInput);
        assert_eq!(error.details["faults"][0]["at"], "/b");
        let schema: Value =
            near.call("services/schema", &json!({ "name": "math/sum" })).await.unwrap();
        assert_eq!(schema["type"], "query");
        assert_eq!(schema["input"]["required"], json!(["a", "b"]));
        assert_eq!(schema["output"]["type"], "integer");
        let list: Value = near.call("services/list", &Nothing {}).await.unwrap();
        assert_eq!(list["operations"][0]["name"], "math/sum");
    }
}

#[tokio::test]
async fn many_calls_at_once_and_large_ones() {
    for kind in KINDS {
        let echo =
            Operation::query("text/echo", async |_: Context, text: String| Ok(text)).unwrap();
        let Both { near, .. } = connect(kind, [sum(), echo], []);
        // More than may be in progress, but not at once: what is done does not count.
        let sums = (0..3000).map(|a| {
            let near = near.clone();
            async move { near.call::<_, i64>("math/sum", &Pair { a, b: 1 }).await }
        });
        let sums: Vec<i64> =
            futures_util::stream::iter(sums).buffered(400).try_collect().await.unwrap();
        assert_eq!(sums, Vec::from_iter(1..=3000));
        let long = "x".repeat(3 * 1024 * 1024);
        assert_eq!(near.call::<_, String>("text/echo", &long).await.as_deref(), Ok(&*long));
        let longer = "x".repeat(5 * 1024 * 1024);
        let error = near.call::<_, String>("text/echo", &longer).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidInput);
    }
}

#[tokio::test]
async fn both_sides_call_each_other_over_one_stream() {
    for kind in KINDS {
        let Both { near, far, .. } = connect(kind, [sum(), count()], [sum(), count()]);
        // Where there is one stream, the dialling side opens it.
        assert_eq!(near.call::<_, i64>("math/sum", &Pair { a: 1, b: 1 }).await, Ok(2));
        assert_eq!(far.call::<_, i64>("math/sum", &Pair { a: 1, b: 2 }).await, Ok(3));
        let items =
            far.subscribe::<_, u64>("math/count", &5, CallOptions::default()).await.unwrap();
        assert_eq!(items.try_collect::<Vec<u64>>().await, Ok(vec![0, 1, 2, 3, 4]));
    }
}

#[tokio::test]
async fn a_subscription_gives_every_item_in_order_and_its_event() {
    for kind in KINDS {
        let Both { near, .. } = connect(kind, [count()], []);
        let options = CallOptions::default().window(3);
        let mut items = near.subscribe::<_, u64>("math/count", &10_000, options).await.unwrap();
        for n in 0..10_000 {
            assert_eq!(items.next().await, Some(Ok(n)));
            assert_eq!(items.event(), Some(&*n.to_string()));
        }
        assert_eq!(items.next().await, None);
    }
}

#[tokio::test]
async fn an_abort_stops_what_the_call_has_called_in_turn() {
    for kind in KINDS {
        let running = Counter::new();
        let deepest = forever("deep/three", &running);
        let through = |name: &str, next: &'static str| {
            Operation::mutation(name, move |context: Context, Nothing {}| async move {
                context.call::<_, Value>(next, &Nothing {}).await
            })
            .unwrap()
            .grants(["call:deep/*"].into_iter().collect::<Scopes>())
        };
        let operations =
            [through("deep/one", "deep/two"), through("deep/two", "deep/three"), deepest];
        let Both { near, .. } = connect(kind, operations, []);
        for _ in 0..3 {
            let call = near.call::<_, Value>("deep/one", &Nothing {});
            tokio::select! {
                _ = call => panic!("it has no end"),
                () = Alive::count(&running, 1) => {}
            }
            Alive::count(&running, 0).await;
        }
        if kind == TransportKind::Tls {
            // A pipe cannot tell a connection that is cut from one direction that ends.
            continue;
        }
        let held = near.clone();
        let mut call = JoinSet::new();
        call.spawn(async move { held.call::<_, Value>("deep/one", &Nothing {}).await });
        Alive::count(&running, 1).await;
        near.connection().close(alknet_core::Code::NORMAL, "");
        Alive::count(&running, 0).await;
        assert_eq!(
            call.join_next().await.unwrap().unwrap().unwrap_err().code,
            ErrorCode::Unavailable
        );
    }
}

#[tokio::test]
async fn any_number_of_subscriptions_one_after_the_other() {
    for kind in KINDS {
        let Both { near, .. } = connect(kind, [count()], []);
        for to in [1, u64::MAX].repeat(100) {
            let options = CallOptions::default().window(1);
            let mut items = near.subscribe::<_, u64>("math/count", &to, options).await.unwrap();
            assert_eq!(items.next().await, Some(Ok(0)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_holds_for_who_takes_nothing() {
    for kind in KINDS {
        let three = Operation::subscription(
            "math/three",
            async |_: Context, Nothing {}, items: Items<u8>| {
                for n in 0..3 {
                    items.send(n).await?;
                }
                std::future::pending().await
            },
        );
        let Both { near, .. } = connect(kind, [three.unwrap()], []);
        let options = CallOptions::default().window(1).timeout(Duration::from_secs(1));
        let begun = tokio::time::Instant::now();
        let mut items = near.subscribe::<_, u8>("math/three", &Nothing {}, options).await.unwrap();
        // One item is on its way, and no more is asked for before it is taken.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(items.next().await, Some(Ok(0)));
        assert_eq!(items.next().await.unwrap().unwrap_err().code, ErrorCode::Timeout);
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn a_failure_too_long_for_a_frame_is_told_in_short() {
    let long = Operation::query("fail/long", async |_: Context, Nothing {}| {
        let details = json!("x".repeat(5 * 1024 * 1024));
        Err::<(), _>(CallError::declared("LONG", "y".repeat(10_000)).with_details(details))
    });
    let long = long.unwrap().error("LONG", "always");
    let Both { near, .. } = connect(TransportKind::Memory, [long], []);
    let error = near.call::<_, ()>("fail/long", &Nothing {}).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.details), ("LONG", Value::Null));
}

#[tokio::test]
async fn an_abort_never_overtakes_its_call() {
    for kind in KINDS {
        let running = Counter::new();
        let Both { near, .. } = connect(kind, [forever("slow/long", &running), sum()], []);
        // The stream stands before any of it is queued.
        assert_eq!(near.call::<_, i64>("math/sum", &Pair { a: 1, b: 1 }).await, Ok(2));
        for _ in 0..50 {
            let call = near.call::<_, Value>("slow/long", &Nothing {});
            assert!(call.now_or_never().is_none());
        }
        assert_eq!(near.call::<_, i64>("math/sum", &Pair { a: 1, b: 1 }).await, Ok(2));
        Alive::count(&running, 0).await;
    }
}

#[tokio::test]
async fn dropping_a_subscription_stops_it() {
    for kind in KINDS {
        let running = Counter::new();
        let counted = running.clone();
        let ticks = Operation::subscription(
            "time/ticks",
            move |_: Context, Nothing {}, items: Items<u8>| {
                let alive = Alive::new(&counted);
                async move {
                    let _alive = alive;
                    items.send(1).await?;
                    std::future::pending().await
                }
            },
        );
        let Both { near, .. } = connect(kind, [ticks.unwrap()], []);
        let mut items = near
            .subscribe::<_, u8>("time/ticks", &Nothing {}, CallOptions::default())
            .await
            .unwrap();
        assert_eq!(items.next().await, Some(Ok(1)));
        Alive::count(&running, 1).await;
        drop(items);
        Alive::count(&running, 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn deadlines_hold() {
    for kind in KINDS {
        let running = Counter::new();
        let brief = forever("slow/brief", &running).deadline(Some(Duration::from_secs(1)));
        let Both { near, .. } = connect(kind, [brief, forever("slow/long", &running)], []);
        let error = near.call::<_, ()>("slow/brief", &Nothing {}).await.unwrap_err();
        assert_eq!(error, CallError::timeout());
        let options = CallOptions::default().timeout(Duration::from_secs(2));
        let error = near.call_raw("slow/long", &Nothing {}, options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout);
        Alive::count(&running, 0).await;
    }
}

/// Each operation alone with a stalled reader: what it has sent stays within bounds.
#[tokio::test(start_paused = true)]
async fn a_stalled_subscriber_is_told_and_holds_little() {
    for kind in KINDS {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let flood = Operation::subscription(
            "flood/all",
            move |_: Context, size: usize, items: Items<String>| {
                let sent = counted.clone();
                async move {
                    loop {
                        items.send("x".repeat(size)).await?;
                        sent.fetch_add(size, Ordering::Relaxed);
                    }
                }
            },
        );
        let Both { near, .. } = connect(kind, [flood.unwrap(), sum()], []);
        for size in [10, 100_000] {
            sent.store(0, Ordering::Relaxed);
            let options = CallOptions::default().window(8);
            let mut items = near.subscribe::<_, String>("flood/all", &size, options).await.unwrap();
            assert!(items.next().await.is_some());
            tokio::time::sleep(Duration::from_secs(29)).await;
            let held = sent.load(Ordering::Relaxed);
            assert!(held < 4 * 1024 * 1024, "{held} bytes of a subscription nobody reads");
            assert_eq!(near.call::<_, i64>("math/sum", &Pair { a: 1, b: 1 }).await, Ok(2));
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(sent.load(Ordering::Relaxed) <= held + size);
            let last = items.fuse().filter(|item| std::future::ready(item.is_err())).next().await;
            let error = last.unwrap().unwrap_err();
            assert_eq!(error.code, ErrorCode::Unavailable);
            assert_eq!(error.details["reason"], "slow-consumer");
        }
    }
}

#[tokio::test]
async fn what_a_caller_may_not_use_does_not_exist() {
    let secret =
        |name: &str| Operation::query(name, async |_: Context, Nothing {}| Ok("secret")).unwrap();
    let public = secret("open/all").access(Access::Public);
    let also = secret("team/also").access(Access::Also(Action::from("exec:run")));
    let operations = [secret("team/plans"), secret("other/plans"), public, also];
    let Both { near, log, .. } =
        with_operations(TransportKind::Memory, auth(Some(alice(&["call:team/*"]))), operations, []);
    let get = async |name: &str| near.call::<_, String>(name, &Nothing {}).await;
    assert_eq!(get("team/plans").await.as_deref(), Ok("secret"));
    assert_eq!(get("open/all").await.as_deref(), Ok("secret"));
    let missing = get("team/nothing").await.unwrap_err();
    assert_eq!(missing, CallError::not_found());
    for hidden in ["other/plans", "team/also", "no name", ""] {
        assert_eq!(get(hidden).await.unwrap_err(), missing, "{hidden}");
        let schema = near.call::<_, Value>("services/schema", &json!({ "name": hidden })).await;
        assert_eq!(schema.unwrap_err(), missing, "{hidden}");
    }
    // Not even wrong input tells the two apart.
    assert_eq!(near.call::<_, String>("other/plans", &json!(1)).await.unwrap_err(), missing);
    let list: Value = near.call("services/list", &Nothing {}).await.unwrap();
    let list = list.to_string();
    assert!(list.contains("team/plans") && list.contains("open/all"));
    assert!(!list.contains("other/plans") && !list.contains("team/also"));
    assert_eq!(log.subjects("refused"), ["other/plans", "team/also", "other/plans"]);
}

/// The operations of a service are for whoever has a grant there, and nothing else is.
#[tokio::test]
async fn a_grant_within_a_service_is_enough_for_its_operations() {
    let open =
        |name: &str| Operation::query(name, async |_: Context, Nothing {}| Ok("reached")).unwrap();
    let served = || {
        let service = Access::Service("files");
        [
            open("files/list").access(service.clone()),
            open("files/read").access(service),
            open("node/status"),
        ]
    };
    for (scopes, reached) in [
        (&["files:read:notes"][..], ["files/list", "files/read"].as_slice()),
        (&["files"], &["files/list", "files/read"]),
        (&["call:files/list"], &["files/list"]),
        (&["call"], &["files/list", "files/read", "node/status"]),
        (&["file:read"], &[]),
        (&["other"], &[]),
    ] {
        let Both { near, .. } =
            with_operations(TransportKind::Memory, auth(Some(alice(scopes))), served(), []);
        for name in ["files/list", "files/read", "node/status"] {
            let outcome = near.call::<_, String>(name, &Nothing {}).await;
            match reached.contains(&name) {
                true => assert_eq!(outcome.as_deref(), Ok("reached"), "{name} by {scopes:?}"),
                false => assert_eq!(outcome, Err(CallError::not_found()), "{name} by {scopes:?}"),
            }
        }
        let registry = OperationRegistry::new(Audit::to_log(), served()).unwrap();
        assert_eq!(registry.admits(&scopes.iter().copied().collect()), !reached.is_empty());
    }
}

/// Whoever is let in for the operations of a service alone finds these, and leaves no names of
/// their own with the node.
#[tokio::test]
async fn a_grant_of_another_service_serves_nothing() {
    let register = json!({ "operations": [{ "name": "page/answer", "type": Kind::Query }] });
    for (scopes, may_serve) in
        [(&["files:read:notes"][..], false), (&["call:other/x"], true), (&["*"], true)]
    {
        let list = Operation::query("files/list", async |_: Context, Nothing {}| Ok("reached"));
        let list = list.unwrap().access(Access::Service("files"));
        let operations = OperationRegistry::new(Audit::to_log(), [list]).unwrap();
        let peers = Peers::new();
        let adapter = CallAdapter::new(operations, CallLimits::default(), peers.clone());
        let mut handlers = HandlerRegistry::new();
        handlers.register(adapter, Reach::ScopeOr(&["files"])).unwrap();
        let node = Dispatcher::new(handlers, Limits::default(), Audit::to_log());
        let admission = node.admit(auth(Some(alice(scopes)))).unwrap();
        let session = admission.auth().session.id().unwrap();
        let (near, far) = connections(TransportKind::Memory);
        drop(admission.start(far));
        let own = OperationRegistry::new(Audit::to_log(), []).unwrap();
        let (limits, draining) = (CallLimits::default(), CancellationToken::new());
        let (peer, driver) = Peer::new(near, own, auth(None), limits, draining);
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        let listed = peer.call::<_, Value>("services/list", &Nothing {}).await.unwrap();
        assert_eq!(listed.to_string().contains("services/register"), may_serve, "{scopes:?}");
        let outcome = peer.call::<_, Value>("services/register", &register).await;
        assert_eq!(outcome.err(), (!may_serve).then(CallError::not_found), "{scopes:?}");
        let served = peers.of(session).map(|peer| peer.operations().len());
        assert_eq!(served, may_serve.then_some(1), "{scopes:?}");
    }
}

#[tokio::test]
async fn a_nested_call_has_the_rights_of_both() {
    let inner = |name: &str| {
        Operation::query(name, async |context: Context, Nothing {}| {
            Ok(context.allows("call:c/deepest"))
        })
        .unwrap()
    };
    let outer = |name: &str, next: &'static str| {
        Operation::query(name, move |context: Context, Nothing {}| async move {
            context.call::<_, bool>(next, &Nothing {}).await
        })
        .unwrap()
    };
    let grants = |text: &'static str| [text].into_iter().collect::<Scopes>();
    let operations = [
        inner("b/inner"),
        inner("c/inner"),
        outer("a/none", "b/inner"),
        outer("a/both", "b/inner").grants(grants("call:b/*")),
        outer("a/more", "c/inner").grants(grants("call")),
        outer("a/raised", "c/inner").elevated(grants("call:c/inner"), "for the test"),
    ];
    let caller = auth(Some(alice(&["call:a/*", "call:b/*"])));
    let Both { near, log, .. } = with_operations(TransportKind::Memory, caller, operations, []);
    let get = async |name: &str| near.call::<_, bool>(name, &Nothing {}).await;
    assert_eq!(get("a/none").await, Err(CallError::not_found()), "the handler may nothing");
    assert_eq!(get("a/both").await, Ok(false));
    assert_eq!(get("a/more").await, Err(CallError::not_found()), "the caller may not");
    assert!(log.subjects("elevated").is_empty());
    assert_eq!(get("a/raised").await, Ok(false));
    assert_eq!(log.subjects("elevated"), ["c/inner"]);
}

#[tokio::test]
async fn an_operation_calls_what_its_caller_serves() {
    for kind in KINDS {
        let ask = Operation::query("node/ask", async |context: Context, question: String| {
            let names: Vec<String> = context
                .peer()
                .unwrap()
                .operations()
                .iter()
                .map(|o| o.spec().name.to_string())
                .collect();
            let answer: String = context.call("page/answer", &question).await?;
            Ok((names, answer))
        });
        let answer =
            Operation::query(
                "page/answer",
                async |_: Context, question: String| Ok(question + "!"),
            );
        let answer = answer.unwrap().access(Access::Public);
        let Both { near, .. } = connect(kind, [ask.unwrap(), sum()], [answer]);
        let ask = async || near.call::<_, (Vec<String>, String)>("node/ask", "why").await;
        assert_eq!(ask().await, Err(CallError::not_found()));
        let served = |name: &str| json!({ "operations": [{ "name": name, "type": Kind::Query }] });
        let _: Value = near.call("services/register", &served("page/answer")).await.unwrap();
        assert_eq!(ask().await, Ok((vec!["page/answer".into()], "why!".into())));
        let taken = near.call::<_, Value>("services/register", &served("math/sum")).await;
        assert_eq!(taken.unwrap_err().code, ErrorCode::InvalidInput);
        // Serving does not make them the node's.
        assert_eq!(near.call::<_, Value>("page/answer", "x").await, Err(CallError::not_found()));
    }
}

#[tokio::test]
async fn failures_are_the_declared_ones() {
    let fail = |name: &str, code: &'static str| {
        Operation::query(name, move |_: Context, Nothing {}| async move {
            Err::<(), _>(CallError::declared(code, "no").with_details(json!([1])))
        })
        .unwrap()
    };
    let panics =
        Operation::query(
            "fail/panic",
            async |_: Context, Nothing {}| {
                if true { panic!("planted-secret") } else { Ok(()) }
            },
        );
    let operations = [
        fail("fail/known", "BROKEN").error("BROKEN", "always"),
        fail("fail/unknown", "ODD"),
        panics.unwrap(),
    ];
    let Both { near, .. } = connect(TransportKind::Memory, operations, []);
    let error = async |name: &str| near.call::<_, ()>(name, &Nothing {}).await.unwrap_err();
    let known = error("fail/known").await;
    assert_eq!((known.code.as_str(), &known.details), ("BROKEN", &json!([1])));
    assert_eq!(error("fail/unknown").await.code, ErrorCode::Internal);
    let panicked = error("fail/panic").await;
    assert_eq!(panicked.code, ErrorCode::Internal);
    assert!(!format!("{panicked:?}").contains("planted-secret"));
    assert_eq!(error("fail/known").await.code.as_str(), "BROKEN", "the connection goes on");
}

#[tokio::test]
async fn a_drain_answers_what_was_asked_and_ends_subscriptions() {
    for kind in KINDS {
        let (release, released) = mpsc::channel::<()>(1);
        let released = Arc::new(tokio::sync::Mutex::new(released));
        let wait = Operation::query("slow/wait", move |_: Context, Nothing {}| {
            let released = released.clone();
            async move { Ok(released.lock().await.recv().await.is_none()) }
        });
        let endless = Operation::subscription(
            "slow/items",
            async |_: Context, Nothing {}, items: Items<u8>| {
                items.send(1).await?;
                std::future::pending().await
            },
        );
        let Both { near, draining, .. } =
            connect(kind, [wait.unwrap(), endless.unwrap(), sum()], []);
        let mut items = near
            .subscribe::<_, u8>("slow/items", &Nothing {}, CallOptions::default())
            .await
            .unwrap();
        assert_eq!(items.next().await, Some(Ok(1)));
        let held = near.clone();
        let mut waiting = JoinSet::new();
        waiting.spawn(async move { held.call::<_, bool>("slow/wait", &Nothing {}).await });
        // The call is in progress once a later one on its stream is done.
        assert_eq!(near.call::<_, i64>("math/sum", &Pair { a: 1, b: 1 }).await, Ok(2));
        draining.cancel();
        assert_eq!(items.next().await.unwrap().unwrap_err().code, ErrorCode::Unavailable);
        let refused = near.call::<_, i64>("math/sum", &Pair { a: 1, b: 1 }).await;
        assert_eq!(refused.unwrap_err().code, ErrorCode::Unavailable);
        drop(release);
        assert_eq!(waiting.join_next().await.unwrap().unwrap(), Ok(true));
        let code = near.connection().closed().await.code;
        // A pipe carries no code.
        assert!(kind == TransportKind::Tls || code == alknet_core::Code::SHUTTING_DOWN);
    }
}

/// Answers that nobody asked for are each met with an abort, which this peer does not read.
#[tokio::test(start_paused = true)]
async fn a_peer_that_says_much_and_reads_nothing_loses_the_stream() {
    let (near, far) = connections(TransportKind::Memory);
    let registry = OperationRegistry::new(Audit::to_log(), []).unwrap();
    let (_, driver) = Peer::new(
        far,
        registry,
        auth(Some(alice(&["*"]))),
        CallLimits::default(),
        CancellationToken::new(),
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run());
    let mut stream = near.open_bi().await.unwrap();
    let flood: Vec<u8> = (0..1000)
        .flat_map(|n| {
            let json = json!({ "type": "call.responded", "id": format!("~{n}"), "payload": {} });
            let json = json.to_string();
            [&u32::try_from(json.len()).unwrap().to_be_bytes(), json.as_bytes()].concat()
        })
        .collect();
    let mut written = 0;
    while stream.write_all(&flood).await.is_ok() {
        written += flood.len();
        assert!(written < 64 * 1024 * 1024, "it takes all there is");
    }
}
