//! A session with a node.

use std::{cell::Cell, future::pending};

use alknet_core::NodeId;
use js_sys::{Function, Object, Promise, Reflect};
use russh::{
    Channel, Disconnect,
    client::{self, Handle, Msg},
    keys::PublicKey,
};
use tokio::sync::oneshot;
use tokio_util::sync::DropGuard;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use wasm_bindgen_futures::future_to_promise;
use web_sys::{ReadableStream, WritableStream};

use crate::{
    ExecResult, Shell, ShellOptions, SshError, bridge,
    client::{Ending, Watch, config},
    exec,
    pipe::Pipe,
    shell, sign,
    timer::within,
};

/// Seconds for the handshake and the authentication, and for opening a channel.
const CONNECT_SECONDS: u32 = 20;
const OPEN_SECONDS: u32 = 20;

/// Seconds for the last bytes when the page disconnects.
const GOODBYE_SECONDS: u32 = 2;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** With whom a session is made, and as whom. */
export interface ConnectOptions {
  /** The login name. */
  user: string;
  /** The node the server has to be: "ed25519:" and 64 hexadecimal digits. */
  nodeId: string;
  /** The user's Ed25519 public key as a line of OpenSSH. */
  publicKey: string;
  /** Signs with the private half; gives the 64 bytes of RFC 8032. */
  sign: (data: Uint8Array<ArrayBuffer>) => Promise<Uint8Array>;
}

/** How a session ended. */
export interface Ending {
  /** Whether the page or the server ended it in words, rather than the connection failing. */
  clean: boolean;
  message: string;
}
"#;

#[wasm_bindgen]
extern "C" {
    /// With whom a session is made, and as whom.
    #[derive(Debug)]
    #[wasm_bindgen(typescript_type = "ConnectOptions")]
    pub type ConnectOptions;

    #[wasm_bindgen(method, getter)]
    fn user(this: &ConnectOptions) -> String;
    #[wasm_bindgen(method, getter, js_name = nodeId)]
    fn node_id(this: &ConnectOptions) -> String;
    #[wasm_bindgen(method, getter, js_name = publicKey)]
    fn public_key(this: &ConnectOptions) -> String;
    #[wasm_bindgen(method, getter)]
    fn sign(this: &ConnectOptions) -> Function;

    /// A promise of how the session ended.
    #[derive(Debug, Clone)]
    #[wasm_bindgen(typescript_type = "Promise<Ending>", extends = Promise)]
    pub type EndingPromise;
}

/// Starts a session over the stream pair: proves that the server is the node, then logs in.
///
/// Both streams are taken over. If it fails they are closed.
#[wasm_bindgen]
pub async fn connect(
    readable: ReadableStream,
    writable: WritableStream,
    options: ConnectOptions,
) -> Result<Ssh, SshError> {
    let node = options.node_id().parse().map_err(|_| SshError::Input("the node id is wrong"))?;
    let (pipe, line) = bridge::join(&readable, &writable)?;
    within(CONNECT_SECONDS, Ssh::start(pipe, line, node, &options)).await
}

/// An authenticated session with a node. It ends when this object is freed.
#[wasm_bindgen]
pub struct Ssh {
    handle: Handle<Watch>,
    closed: EndingPromise,
    line: Cell<Option<DropGuard>>,
}

impl std::fmt::Debug for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ssh").finish_non_exhaustive()
    }
}

#[wasm_bindgen]
impl Ssh {
    /// Resolves when the session has ended, however that came about. Never rejects.
    #[wasm_bindgen(getter)]
    pub fn closed(&self) -> EndingPromise {
        self.closed.clone()
    }

    /// Starts a login shell in a terminal.
    pub async fn shell(&self, options: ShellOptions) -> Result<Shell, SshError> {
        let channel = within(OPEN_SECONDS, self.open()).await?;
        within(OPEN_SECONDS, shell::start(channel, options)).await
    }

    /// Runs a command and collects what it writes, up to 16 MiB.
    pub async fn exec(&self, command: String) -> Result<ExecResult, SshError> {
        let channel = within(OPEN_SECONDS, self.open()).await?;
        exec::run(channel, command).await
    }

    /// Says goodbye and ends the session; its shells end with it.
    pub async fn disconnect(&self) {
        let closed = self.closed.clone();
        let goodbye = async {
            self.handle.disconnect(Disconnect::ByApplication, "", "").await?;
            let _ = wasm_bindgen_futures::JsFuture::from(Promise::from(closed)).await;
            Ok(())
        };
        // Polite or not, the line is cut below.
        let _ = within(GOODBYE_SECONDS, goodbye).await;
        self.line.take();
    }
}

impl Ssh {
    async fn start(
        pipe: Pipe,
        line: DropGuard,
        node: NodeId,
        options: &ConnectOptions,
    ) -> Result<Self, SshError> {
        let key = PublicKey::from_openssh(&options.public_key())
            .map_err(|_| SshError::Input("the public key is not a line of OpenSSH"))?;
        let (watch, ending) = Watch::new(node);
        let mut handle = client::connect_stream(config(), pipe, watch).await?;
        login(&mut handle, options, key).await?;
        Ok(Self { handle, closed: closed(ending), line: Cell::new(Some(line)) })
    }

    async fn open(&self) -> Result<Channel<Msg>, SshError> {
        Ok(self.handle.channel_open_session().await?)
    }
}

async fn login(
    handle: &mut Handle<Watch>,
    options: &ConnectOptions,
    key: PublicKey,
) -> Result<(), SshError> {
    let user = options.user();
    let (mut signer, page) = sign::pair(options.sign());
    let login = handle.authenticate_publickey_with(user.clone(), key, None, &mut signer);
    let answer = tokio::select! {
        answer = login => answer?,
        () = async { page.serve().await; pending().await } => return Err(SshError::Closed),
    };
    if answer.success() { Ok(()) } else { Err(SshError::Auth { user }) }
}

/// A promise beside the session, which resolves when the session's watch reports its end.
fn closed(ending: oneshot::Receiver<Ending>) -> EndingPromise {
    let promise = future_to_promise(async move {
        let (clean, message) = match ending.await {
            Ok(Ending::Server(words)) => (true, words),
            Ok(Ending::Lost(SshError::Closed)) | Err(_) => (false, String::new()),
            Ok(Ending::Lost(error)) => (false, error.to_string()),
        };
        let end = Object::new();
        Reflect::set(&end, &"clean".into(), &clean.into())?;
        Reflect::set(&end, &"message".into(), &message.into())?;
        Ok(JsValue::from(end))
    });
    wasm_bindgen::JsCast::unchecked_into(promise)
}
