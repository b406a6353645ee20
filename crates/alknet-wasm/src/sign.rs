//! Signatures by the page.

use js_sys::{Function, Promise, Uint8Array};
use russh::{
    Signer,
    keys::{HashAlg, agent::AgentIdentity},
};
use tokio::sync::{mpsc, oneshot};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use crate::SshError;

const ALGORITHM: &[u8] = b"ssh-ed25519";

/// An Ed25519 signature (RFC 8032).
type Signature = [u8; 64];

/// The half inside the SSH session: it asks, because it may not touch JavaScript objects.
pub(crate) struct RemoteSigner(mpsc::UnboundedSender<Request>);

struct Request {
    data: Vec<u8>,
    answer: oneshot::Sender<Result<Signature, SshError>>,
}

/// The half beside the page.
pub(crate) struct PageSigner {
    sign: Function,
    requests: mpsc::UnboundedReceiver<Request>,
}

pub(crate) fn pair(sign: Function) -> (RemoteSigner, PageSigner) {
    let (ask, requests) = mpsc::unbounded_channel();
    (RemoteSigner(ask), PageSigner { sign, requests })
}

impl Signer for RemoteSigner {
    type Error = SshError;

    /// Returns the data with the signature behind it, encoded as RFC 4252 §7 and RFC 8709
    /// have it.
    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, SshError> {
        let (answer, signature) = oneshot::channel();
        let request = Request { data: data.clone(), answer };
        self.0.send(request).map_err(|_| SshError::Closed)?;
        let signature = signature.await.map_err(|_| SshError::Closed)??;
        let mut blob = Vec::new();
        put_string(&mut blob, ALGORITHM);
        put_string(&mut blob, &signature);
        put_string(&mut data, &blob);
        Ok(data)
    }
}

impl PageSigner {
    /// Answers requests until the session asks no more.
    pub(crate) async fn serve(mut self) {
        while let Some(request) = self.requests.recv().await {
            let signature = self.sign(&request.data).await.ok_or(SshError::Sign);
            let _ = request.answer.send(signature);
        }
    }

    async fn sign(&self, data: &[u8]) -> Option<Signature> {
        let data = Uint8Array::from(data);
        let result = self.sign.call1(&JsValue::UNDEFINED, &data).ok()?;
        let signature = JsFuture::from(Promise::resolve(&result)).await.ok()?;
        signature.dyn_into::<Uint8Array>().ok()?.to_vec().try_into().ok()
    }
}

/// A string as RFC 4251 §5 writes it. Only short ones: lengths are known here.
fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}
