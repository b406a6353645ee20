//! Pumps between a JavaScript stream pair and a [`Pipe`].

use bytes::Bytes;
use js_sys::{Reflect, Uint8Array};
use tokio_util::sync::{CancellationToken, DropGuard};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{
    ReadableStream, ReadableStreamDefaultReader, WritableStream, WritableStreamDefaultWriter,
};

use crate::{
    SshError,
    pipe::{Inlet, Outlet, Pipe},
};

/// Joins the pair to a pipe. Dropping the guard cuts the connection at once: the pipe
/// reads its end, and both JavaScript streams are cancelled.
pub(crate) fn join(
    readable: &ReadableStream,
    writable: &WritableStream,
) -> Result<(Pipe, DropGuard), SshError> {
    let locked = |_| SshError::Input("a stream is already in use");
    if readable.locked() {
        return Err(locked(JsValue::NULL));
    }
    let reader: ReadableStreamDefaultReader = readable.get_reader().unchecked_into();
    let writer = writable.get_writer().map_err(locked)?;
    let (pipe, inlet, outlet) = Pipe::new();
    let stop = CancellationToken::new();
    spawn_local(receive(reader, inlet, stop.clone()));
    spawn_local(send(writer, outlet, stop.clone()));
    Ok((pipe, stop.drop_guard()))
}

async fn receive(reader: ReadableStreamDefaultReader, inlet: Inlet, stop: CancellationToken) {
    let pump = async {
        while let Some(chunk) = read(&reader).await {
            if inlet.send(chunk).await.is_err() {
                break;
            }
        }
    };
    stop.run_until_cancelled(pump).await;
    drop(inlet);
    // The transport may be gone already; there is nobody to tell.
    let _ = JsFuture::from(reader.cancel()).await;
}

/// The next chunk; `None` at the end, after an error, and for what is not a byte array.
async fn read(reader: &ReadableStreamDefaultReader) -> Option<Bytes> {
    let result = JsFuture::from(reader.read()).await.ok()?;
    let value = Reflect::get(&result, &"value".into()).ok()?;
    let chunk: Uint8Array = value.dyn_into().ok()?;
    Some(chunk.to_vec().into())
}

async fn send(writer: WritableStreamDefaultWriter, mut outlet: Outlet, stop: CancellationToken) {
    let pump = async {
        while let Some(batch) = outlet.next().await {
            let chunk = Uint8Array::from(&batch[..]);
            JsFuture::from(writer.write_with_chunk(&chunk)).await.ok()?;
        }
        JsFuture::from(writer.close()).await.ok()
    };
    if stop.run_until_cancelled(pump).await.flatten().is_none() {
        // Cut short, or failed: nothing more can be sent.
        let _ = JsFuture::from(writer.abort()).await;
    }
    outlet.finished();
}
