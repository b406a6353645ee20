//! Whatever the body of a request is, there is an answer, and it is no fault of the server.
#![no_main]

use alknet_fuzz::{TOKEN, ends, http, run};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Where a body is read, and what one looks like; what is fuzzed stands for the `@`.
const BODIES: &[(&str, &str)] = &[
    ("/alknet/ticket", "@"),
    ("/alknet/ticket", r#"{"alpn":"@"}"#),
    ("/alknet/api/test/add", "@"),
    ("/alknet/api/test/add", r#"{"a":@,"b":1}"#),
    ("/alknet/api/test/set", "@"),
    ("/alknet/api/test/count", r#"{"to":@}"#),
    ("/alknet/api/test/count", r#"{"to":3,"text":"@"}"#),
    ("/alknet/api/test/wait", r#"{"to":@}"#),
    ("/alknet/api/test/relay", r#"{"operation":"@","input":{"a":1,"b":2}}"#),
    ("/alknet/api/test/relay", r#"{"operation":"test/relay","input":@}"#),
    ("/alknet/api/services/schema", r#"{"name":"@"}"#),
    ("/alknet/api/services/register", r#"{"operations":@}"#),
    ("/alknet/api/batch", "@"),
    ("/alknet/api/batch", "[@]"),
    ("/alknet/api/batch", r#"[{"id":"1","operation":"test/add","input":@}]"#),
    ("/alknet/api/batch", r#"[{"id":@,"operation":"test/set","input":1}]"#),
    ("/alknet/mcp", "@"),
    ("/alknet/mcp", r#"{"jsonrpc":"2.0","id":1,"method":"@"}"#),
    ("/alknet/mcp", r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":@}"#),
    (
        "/alknet/mcp",
        r#"{"jsonrpc":"2.0","id":@,"method":"tools/call","params":{"name":"test_add","arguments":{"a":1,"b":2}}}"#,
    ),
    (
        "/alknet/mcp",
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"test_set","arguments":@}}"#,
    ),
    (
        "/alknet/mcp",
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":@,"clientInfo":{"name":"x","version":"1"}}}"#,
    ),
];

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (which, chunk, fuzzed) = input;
    let (path, template) = BODIES[usize::from(which) % BODIES.len()];
    let (before, after) = template.split_once('@').unwrap();
    let body = [before.as_bytes(), fuzzed, after.as_bytes()].concat();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: node.example\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    run(async {
        let (stream, serving) = http();
        let (mut send, mut recv) = stream.split();
        let writing = async {
            send.write_all(head.as_bytes()).await?;
            for chunk in body.chunks(usize::from(chunk) + 1) {
                send.write_all(chunk).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let mut answer = Vec::new();
        let reading = recv.read_to_end(&mut answer);
        let (_, read) = ends("the answer", async { tokio::join!(writing, reading) }).await;
        read.unwrap();
        drop((send, recv));
        ends("the server", serving).await.unwrap();
        let status = answer.strip_prefix(b"HTTP/1.1 ").expect("an answer");
        // A call that takes too long is the only failure that a body can ask for.
        let fault = status[0] == b'5' && !status.starts_with(b"504");
        assert!(!fault, "{path}: {}", String::from_utf8_lossy(&answer));
    });
});
