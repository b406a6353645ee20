//! Bytes that no client sends.

use alknet_core::{Connection, Stream};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::node::{Node, soon};

async fn send(connection: &Connection, bytes: &[u8]) -> Stream {
    let mut stream = connection.open_bi().await.unwrap();
    // The node may have had enough before all of it.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    stream
}

async fn answer(stream: &mut Stream) -> String {
    let mut all = BytesMut::new();
    soon("the end of the stream", async {
        while stream.read_buf(&mut all).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    String::from_utf8_lossy(&all).into_owned()
}

fn control(json: &str) -> Vec<u8> {
    let mut out = vec![1];
    out.extend(u32::try_from(json.len()).unwrap().to_be_bytes());
    out.extend(json.as_bytes());
    out
}

/// By a viewer that was not there before.
fn attach(more: &str) -> Vec<u8> {
    control(&format!(
        r#"{{"type":"attach","viewer":"{}","attempt":1,"create":true,
        "terminal":{{"columns":80,"rows":24}}{more}}}"#,
        alknet_shell::Id::random().unwrap()
    ))
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_ends_the_stream() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let long = vec![b' '; 5000];
    let requests: Vec<Vec<u8>> = vec![
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        vec![0; 64],
        vec![255; 64],
        vec![1, 0xff, 0xff, 0xff, 0xff],
        [&[1, 0, 0, 0x13, 0x88][..], &long].concat(),
        control("{}"),
        control("[1"),
        control(r#"{"type":"attach"}"#),
        control(r#"{"type":"end"}"#),
        vec![3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, b'x'],
        vec![9, 0, 0, 0, 0],
        attach(r#","name":"../../etc""#),
        attach(r#","terminal":{"term":"a b","columns":80,"rows":24}"#),
        attach(r#","output":7,"session":"00000000000000000000000000000000""#),
    ];
    for request in requests {
        let connection = node.connect(&ann);
        let mut stream = send(&connection, &request).await;
        let said = answer(&mut stream).await;
        assert!(said.contains("\"type\":\"error\""), "{request:?}: {said:?}");
    }
}

#[tokio::test]
async fn what_breaks_the_rules_later_ends_that_viewer_alone() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let mut good = node.view(&ann, |_| {});
    good.types("echo u''p\r").await;
    good.sees("up\r\n").await;
    let input = |offset: u64, length: usize| {
        let mut frame = vec![3];
        frame.extend(u32::try_from(length + 8).unwrap().to_be_bytes());
        frame.extend(offset.to_be_bytes());
        frame.extend(vec![b'#'; length]);
        frame
    };
    let ack = [&[4, 0, 0, 0, 8][..], &u64::MAX.to_be_bytes()].concat();
    for evil in [
        input(1, 10),
        input(0, 0),
        input(0, 70_000),
        input(u64::MAX, 10),
        ack,
        control(r#"{"type":"list"}"#),
        vec![2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, b'x'],
        vec![6, 0, 0, 0, 2, 0, 0],
        vec![0],
    ] {
        let connection = node.connect(&ann);
        let bytes = [&attach("")[..], &evil, &[0; 5]].concat();
        let mut stream = send(&connection, &bytes).await;
        let said = answer(&mut stream).await;
        assert!(said.contains("\"protocol\""), "{evil:?}: {said:?}");
    }
    good.types("echo fi''ne\r").await;
    good.sees("fine").await;
}
