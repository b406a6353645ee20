//! Requests whose body nobody reads.

use std::time::Duration;

use alknet_core::Stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep, timeout},
};

use crate::harness::{HOST, Node};

/// What nginx waits for a body that it throws away: for a piece, and in all.
const IDLE: Duration = Duration::from_secs(5);
const TOTAL: Duration = Duration::from_secs(30);

/// The head of a request for nothing that is there, with a body of this length to come.
fn post(length: usize, more: &str) -> String {
    format!("POST /nothing HTTP/1.1\r\nHost: {HOST}\r\n{more}Content-Length: {length}\r\n\r\n")
}

/// The status line of the next answer, whose body is read as well.
async fn answer(stream: &mut Stream) -> String {
    let mut answer = Vec::new();
    let reading = async {
        while !answer.ends_with(b"</html>\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(Duration::from_secs(10), reading).await.unwrap();
    let text = String::from_utf8(answer).unwrap();
    text.split_once("\r\n").unwrap().0.to_owned()
}

/// How long it takes the node to end the connection.
async fn ended(stream: &mut Stream) -> Duration {
    let start = Instant::now();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    start.elapsed()
}

#[tokio::test]
async fn the_answer_does_not_wait_for_it_and_the_connection_goes_on_after_it() {
    let node = Node::new();
    let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
    // More than any buffer on the way holds.
    let body = vec![b'x'; 900_000];
    for more in ["", "Expect: 100-continue\r\n"] {
        stream.write_all(post(body.len(), more).as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await, "HTTP/1.1 404 Not Found");
        stream.write_all(&body).await.unwrap();
    }
    stream.write_all(post(0, "").as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await, "HTTP/1.1 404 Not Found");
}

#[tokio::test(start_paused = true)]
async fn one_that_never_comes_holds_the_connection_for_moments() {
    let node = Node::new();
    let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
    stream.write_all(post(1000, "").as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await, "HTTP/1.1 404 Not Found");
    let held = ended(&mut stream).await;
    assert!(held >= IDLE && held < IDLE * 2, "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_drips_holds_it_no_longer_than_nginx_allows() {
    let node = Node::new();
    let stream = node.connect("http/1.1").open_bi().await.unwrap();
    let (mut send, mut recv) = stream.split();
    send.write_all(post(1000, "").as_bytes()).await.unwrap();
    let drip = async {
        while send.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    let start = Instant::now();
    let mut heard = Vec::new();
    tokio::select! {
        () = drip => {}
        read = recv.read_to_end(&mut heard) => drop(read.unwrap()),
    }
    let held = start.elapsed();
    assert!(held >= TOTAL && held < TOTAL + IDLE, "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_it() {
    let node = Node::new();
    let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
    stream.write_all(post(1000, "").as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await, "HTTP/1.1 404 Not Found");
    let start = Instant::now();
    assert_eq!(node.dispatcher.shutdown(TOTAL).await, 0);
    assert!(start.elapsed() < IDLE, "{:?}", start.elapsed());
}
