//! Services that are not the node's own: one that works, one that panics, and two that
//! want the same protocol.

use std::process::Output;

use serde_json::Value;

use crate::{
    client::{Client, WAYS},
    node::{Home, Node},
    process::{eventually, output, output_with, stdout, text},
    session::Session,
};

/// `alknet dial` to a service of a node, with something to say to it.
fn dial(client: &Client, node: &Node, service: &str, via: &str, input: &[u8]) -> Output {
    let (address, id) = (node.address().to_string(), node.id().to_string());
    let args = ["dial", &address, service, "--via", via, "--pin", &id];
    output_with(&mut client.home.alknet(&args), input)
}

#[test]
fn one_line_of_assembly_is_reached_over_every_transport() {
    let home = Home::new();
    let node = Node::start_example(&home, "own_service");
    let client = Client::known_to(&home, "tester", "echo");
    // More than any window or buffer on the way, and every byte there is.
    let sent: Vec<u8> = (0..4_u32 << 20).map(|i| (i ^ (i >> 8)).to_le_bytes()[0]).collect();
    for via in WAYS {
        let echoed = dial(&client, &node, "echo", via, &sent);
        assert!(echoed.status.success(), "{via}: {}", echoed.status);
        assert_eq!(echoed.stdout.len(), sent.len(), "{via}");
        assert!(echoed.stdout == sent, "{via}: other bytes came back");
        home.audited(via, |event| {
            event["event"] == "session-end"
                && event["alpn"] == "alknet/echo"
                && event["transport"] == via
                && event["reason"] == "done"
        });
    }
}

#[test]
fn it_refuses_whom_nobody_gave_its_scope() {
    /// What a key that nobody knows is called, by transport.
    const UNKNOWN: [&str; 4] =
        ["not authenticated", "not authenticated", "no credential", "no credential"];
    let home = Home::new();
    let node = Node::start_example(&home, "own_service");
    let stranger = Client::new();
    let lacking = Client::known_to(&home, "lacking", "ssh");
    for (via, unknown) in WAYS.into_iter().zip(UNKNOWN) {
        for (client, reason) in [(&stranger, unknown), (&lacking, "outside the caller's scopes")] {
            let refused = dial(client, &node, "echo", via, b"hello");
            assert_eq!(refused.status.code(), Some(1), "{via}: {}", text(&refused));
            assert!(refused.stdout.is_empty(), "{via}: {}", text(&refused));
            home.audited(&format!("{reason} over {via}"), |event| {
                event["event"] == "refused"
                    && event["alpn"] == "alknet/echo"
                    && event["transport"] == via
                    && event["reason"] == reason
            });
        }
    }
    let admitted =
        |event: &Value| event["event"] == "session-start" && event["alpn"] == "alknet/echo";
    assert!(!home.audit().iter().any(admitted));
}

/// Its own connection ends, and nothing else does: not the sessions that run, of whatever
/// transport, and not the node.
#[test]
fn a_panic_ends_its_own_connection_alone() {
    let home = Home::new();
    let node = Node::start_example(&home, "misbehaving");
    let client = Client::known_to(&home, "tester", "ssh,panic");
    let start = |via| Session::start(&client, &node, via, "cat; exit 7");
    let mut sessions = WAYS.map(start);
    sessions.iter_mut().for_each(Session::ready);

    for via in WAYS {
        let panicked = dial(&client, &node, "panic", via, b"hello");
        assert_eq!(panicked.status.code(), Some(1), "{via}: {}", text(&panicked));
        assert!(panicked.stdout.is_empty(), "{via}: {}", text(&panicked));
        home.audited(via, |event| {
            event["event"] == "session-end"
                && event["alpn"] == "alknet/panic"
                && event["transport"] == via
                && event["reason"] == "the handler panicked"
        });
        for session in &mut sessions {
            session.echoes(&format!("after the one over {via}"));
        }
    }

    for mut session in sessions {
        session.end_input();
        assert_eq!(session.wait(), Some(7));
    }
    for via in WAYS {
        assert_eq!(stdout(&output(client.ssh(&node, via).arg("echo on"))), "on\n");
    }
    eventually("every panic in the log", || {
        (node.log().matches("the handler panicked").count() == WAYS.len()).then_some(())
    });
}

#[test]
fn two_handlers_of_one_protocol_do_not_start() {
    let home = Home::new();
    let mut serve = home.example("misbehaving", &["serve", "--listen", "127.0.0.1:0"]);
    let refused = output(serve.env("TWO_HANDLERS", "yes"));
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(refused.stdout.is_empty(), "{said}");
    for name in ["alknet/panic", "clumsy", "greedy"] {
        assert!(String::from_utf8_lossy(&refused.stderr).contains(name), "{said}");
    }
    assert!(!home.path().join("run/address").exists());
}
