//! Sessions and their viewers.

use alknet_shell::{
    client::{self, Outcome},
    wire::{Exit, RefusalCode, Which},
};

use crate::node::{Node, code, soon};

#[tokio::test]
async fn a_shell_runs_and_ends_with_its_status() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let mut viewer = node.view(&ann, |request| {
        request.env.insert("LANG".into(), "C.UTF-8".into());
        request.env.insert("LD_PRELOAD".into(), "/nowhere".into());
    });
    viewer.types("echo [$TERM,$LANG,$LD_PRELOAD,$HOME]; tty; stty size\r").await;
    viewer.sees(&format!("[xterm,C.UTF-8,,{}]", node.file("").display()).replace("/]", "]")).await;
    viewer.sees("/dev/pts/").await;
    viewer.sees("24 80").await;
    viewer.types("exit 3\r").await;
    let (outcome, _) = viewer.ends().await;
    assert_eq!(outcome.unwrap(), Outcome::Exited(Exit { status: Some(3), signal: None }));
}

#[tokio::test]
async fn a_command_ends_by_a_signal_and_all_its_output_is_there() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let viewer = node.view(&ann, |request| {
        request.command = Some("stty -onlcr; seq 1 20000; kill -KILL $$".into());
    });
    let (outcome, output) = viewer.ends().await;
    let exit = Exit { status: None, signal: Some("KILL".into()) };
    assert_eq!(outcome.unwrap(), Outcome::Exited(exit));
    let expected: String = (1..=20000).map(|n| format!("{n}\n")).collect();
    assert!(output == expected.as_bytes(), "{} bytes", output.len());
}

#[tokio::test]
async fn a_session_goes_on_without_viewers_and_the_next_sees_its_screen() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let mut first = node.view(&ann, |_| {});
    first.types("x=kept; printf '\\033[?2004h'; echo over$x\r").await;
    first.sees("overkept").await;
    first.detaches().await;
    let mut second = node.view(&ann, |request| request.history = 100);
    second.sees("overkept").await;
    second
        .until("a reset and the modes", |seen| {
            seen.resets == 1 && seen.text.windows(8).any(|it| it == b"\x1b[?2004h")
        })
        .await;
    assert!(!second.saw(|seen| seen.attached[0].created));
    second.types("echo $x again\r").await;
    second.sees("kept again").await;
}

#[tokio::test]
async fn two_viewers_see_the_same_and_a_read_only_one_types_nothing() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let mut first = node.view(&ann, |_| {});
    first.types("echo o''ne\r").await;
    first.sees("one\r\n").await;
    let mut second = node.view(&ann, |request| {
        request.terminal.columns = 60;
        request.terminal.rows = 10;
    });
    second.sees("one").await;
    first
        .until("who joined", |seen| seen.notices.iter().any(|it| it == &("joined".into(), 2)))
        .await;
    second.types("echo two; stty size\r").await;
    first.sees("10 60").await;
    second.sees("10 60").await;
    let mut onlooker = node.view(&ann, |request| {
        request.read_only = true;
        request.create = false;
        request.terminal.rows = 3;
    });
    onlooker.sees("10 60").await;
    onlooker.types("echo forbidden\r").await;
    onlooker.resizes(20, 2);
    second.types("echo se''en\r").await;
    onlooker.sees("seen").await;
    onlooker.detaches().await;
    second.detaches().await;
    first.until("the size again", |seen| seen.notices.iter().any(|it| it.0 == "left")).await;
    first.resizes(90, 30);
    first.until("the new size", |seen| seen.notices.iter().any(|it| it.0 == "resized")).await;
    first.types("stty size\r").await;
    first.sees("30 90").await;
    assert!(!first.saw(|seen| String::from_utf8_lossy(&seen.text).contains("forbidden")));
}

#[tokio::test]
async fn sessions_are_listed_ended_and_limited() {
    let node = Node::with(|limits| limits.sessions = 2);
    let ann = node.knows("ann", &["shell"]);
    let named = |name: &'static str| {
        move |request: &mut client::Request| request.name = Some(name.parse().unwrap())
    };
    let mut first = node.view(&ann, named("one"));
    first.until("the first", |seen| !seen.attached.is_empty()).await;
    let mut second = node.view(&ann, |request| {
        named("two")(request);
        request.command = Some("echo up; sleep 1000".into());
    });
    second.sees("up").await;
    assert_eq!(code(node.view(&ann, named("three")).ends().await.0), RefusalCode::Limit);
    let listed = client::list(&node.connect(&ann)).await.unwrap();
    let names: Vec<_> = listed.iter().map(|it| (it.name.as_str(), it.command.as_deref())).collect();
    assert_eq!(names, [("one", None), ("two", Some("echo up; sleep 1000"))]);
    assert!(listed.iter().all(|it| it.viewers.len() == 1 && !it.viewers[0].away));
    let which = Which { name: Some("two".parse().unwrap()), session: None };
    let ended = client::end(&node.connect(&ann), which.clone()).await.unwrap();
    assert_eq!(ended.as_str(), "two");
    assert_eq!(code(second.ends().await.0), RefusalCode::Ended);
    assert!(client::end(&node.connect(&ann), which).await.is_err());
    let third = node.view(&ann, named("three"));
    third.detaches().await;
    // The one that was attached last.
    let mut last = node.view(&ann, |_| {});
    last.until("the last", |seen| {
        seen.attached.first().is_some_and(|it| it.name.as_str() == "three")
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_tells_the_viewers_and_ends_the_programs() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let mut viewer = node.view(&ann, |request| {
        request.command = Some("echo $$ > pid; echo up; sleep 1000".into());
    });
    viewer.sees("up").await;
    let pid = std::fs::read_to_string(node.file("pid")).unwrap();
    soon("the shutdown", node.shells.shutdown()).await;
    assert_eq!(code(viewer.ends().await.0), RefusalCode::ShuttingDown);
    assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
    let late = node.view(&ann, |_| {});
    // The connection may be closed before the request is read.
    assert!(late.ends().await.0.is_err());
}

#[tokio::test]
async fn programs_that_do_not_hang_up_are_limited_too() {
    let node = Node::with(|limits| {
        limits.sessions = 2;
        limits.hangup_grace = std::time::Duration::from_secs(3600);
    });
    let ann = node.knows("ann", &["shell"]);
    let which = Which { session: None, name: Some("main".parse().unwrap()) };
    let stubborn = |request: &mut client::Request| {
        request.command = Some("trap '' HUP; echo up; while :; do sleep 1000; done".into());
    };
    for _ in 0..4 {
        let mut viewer = node.view(&ann, stubborn);
        viewer.sees("up").await;
        client::end(&node.connect(&ann), which.clone()).await.unwrap();
        assert_eq!(code(viewer.ends().await.0), RefusalCode::Ended);
    }
    assert_eq!(code(node.view(&ann, stubborn).ends().await.0), RefusalCode::Limit);
}

#[tokio::test]
async fn leaving_waits_for_nothing_and_takes_along_what_was_typed() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let mut viewer = node.view(&ann, |request| {
        request.command = Some("stty raw -echo; echo up; head -c 5 > typed; sleep 1000".into());
    });
    viewer.sees("up").await;
    viewer.types("hello").await;
    viewer.detaches().await;
    soon("what was typed", async {
        while std::fs::read(node.file("typed")).unwrap_or_default() != b"hello" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stuck = node.view(&ann, |request| {
        request.name = Some("stuck".parse().unwrap());
        request.command = Some("sleep 1000".into());
    });
    // More than goes anywhere: the queue is full.
    while stuck.tries([b'x'; 16 * 1024]) || !stuck.saw(|seen| !seen.attached.is_empty()) {
        tokio::task::yield_now().await;
    }
    stuck.detaches().await;
    node.network.freeze(true);
    let early = node.view(&ann, |_| {});
    early.leaves();
    let outcome = early.ends().await.0;
    assert!(matches!(outcome, Err(client::ViewError::Left)), "{outcome:?}");
}

#[tokio::test]
async fn a_request_that_fits_in_no_frame_is_not_sent() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let long = node.view(&ann, |request| request.command = Some("x".repeat(5000)));
    let outcome = long.ends().await.0;
    assert!(matches!(outcome, Err(client::ViewError::TooLong)), "{outcome:?}");
    assert_eq!(node.network.made(), 0);
}

#[tokio::test]
async fn nobody_looks_for_too_long() {
    let node = Node::with(|limits| limits.detached = Some(std::time::Duration::ZERO));
    let ann = node.knows("ann", &["shell"]);
    let mut viewer = node.view(&ann, |request| {
        request.command =
            Some("trap 'echo over > over; exit' HUP; echo up; sleep 1000 & wait".into());
    });
    viewer.sees("up").await;
    viewer.detaches().await;
    soon("the end of the session", async {
        while !client::list(&node.connect(&ann)).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_ends_with_its_program_whoever_writes_on() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    for noise in ["yes y", "while echo; do sleep 0.02; done"] {
        let began = std::time::Instant::now();
        let command = format!("(trap '' HUP; {noise}) & sleep 1; echo last; exit 5");
        let viewer = node.view(&ann, |request| request.command = Some(command));
        let (outcome, output) = viewer.ends().await;
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(20), "{noise}: {took:?}");
        assert_eq!(outcome.unwrap(), Outcome::Exited(Exit { status: Some(5), signal: None }));
        assert!(String::from_utf8_lossy(&output).contains("last"), "{noise}");
    }
}
