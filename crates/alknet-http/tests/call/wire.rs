//! Frames, written and read by hand.

use std::time::Duration;

use alknet_core::{Connection, Stream};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

/// Long enough for a loaded machine; nothing here waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);

/// One stream of frames.
pub(crate) struct Frames(Stream);

impl Frames {
    /// Opens a stream.
    pub(crate) async fn open(connection: &Connection) -> Self {
        Self(connection.open_bi().await.unwrap())
    }

    /// Takes the stream that the node opens.
    pub(crate) async fn accept(connection: &Connection) -> Self {
        Self(timeout(PATIENCE, connection.accept_bi()).await.unwrap().unwrap())
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        let json = frame.to_string();
        let length = u32::try_from(json.len()).unwrap().to_be_bytes();
        self.send_bytes(&[&length, json.as_bytes()].concat()).await;
    }

    /// Sends a request with this payload.
    pub(crate) async fn request(&mut self, id: &str, operation: &str, input: Value) {
        let payload = json!({ "operationId": operation, "input": input });
        self.send(&json!({ "type": "call.requested", "id": id, "payload": payload })).await;
    }

    /// Sends a frame of another type.
    pub(crate) async fn say(&mut self, kind: &str, id: &str, payload: Value) {
        self.send(&json!({ "type": kind, "id": id, "payload": payload })).await;
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Value {
        let read = async {
            let length = self.0.read_u32().await.unwrap();
            let mut json = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut json).await.unwrap();
            serde_json::from_slice(&json).unwrap()
        };
        timeout(PATIENCE, read).await.unwrap()
    }

    /// The next frame, which has to be this one.
    pub(crate) async fn expect(&mut self, kind: &str, id: &str, payload: Value) {
        let frame = json!({ "type": kind, "id": id, "payload": payload });
        assert_eq!(self.next().await, frame);
    }

    /// The next frame, which has to be an error with this code.
    pub(crate) async fn expect_error(&mut self, id: &str, code: &str) -> Value {
        let frame = self.next().await;
        assert_eq!((&frame["type"], &frame["id"]), (&json!("call.error"), &json!(id)), "{frame}");
        let payload = frame["payload"].clone();
        assert_eq!(payload["code"], code);
        assert!(payload["message"].is_string() && payload["retryable"].is_boolean());
        assert!(payload.get("details").is_some());
        payload
    }

    /// Nothing is on its way: what was asked last is answered next.
    pub(crate) async fn expect_quiet(&mut self) {
        self.request("quiet", "test/echo", json!("quiet")).await;
        self.expect("call.responded", "quiet", json!({ "output": "quiet" })).await;
    }

    /// The end of the node's direction.
    pub(crate) async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }

    /// Ends this side's direction.
    pub(crate) async fn finish(&mut self) {
        self.0.shutdown().await.unwrap();
    }
}
