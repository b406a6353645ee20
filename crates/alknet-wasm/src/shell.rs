//! A login shell in a terminal.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use js_sys::{Array, Function, Object, Promise, Reflect, Uint8Array};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use wasm_bindgen_futures::{JsFuture, spawn_local};

use crate::SshError;

/// MiB of input that may wait for the shell to read them.
const WAITING_MIB: u32 = 8;
const WAITING: usize = 8 * 1024 * 1024;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** A terminal, and who listens to it. */
export interface ShellOptions {
  /** The terminal's type, such as "xterm-256color". */
  term: string;
  cols: number;
  rows: number;
  /** Variables to set in the shell's environment; the node ignores those it does not allow. */
  env?: Record<string, string>;
  /** Takes output. Nothing more is read until the promise it may return resolves. */
  onData: (data: Uint8Array<ArrayBuffer>) => void | Promise<void>;
  /** Called once, after the last output. */
  onExit: (exit: ShellExit) => void;
}

/** How a shell ended; neither is set when the connection was lost. */
export interface ShellExit {
  code?: number;
  signal?: string;
}
"#;

#[wasm_bindgen]
extern "C" {
    /// A terminal, and who listens to it.
    #[derive(Debug)]
    #[wasm_bindgen(typescript_type = "ShellOptions")]
    pub type ShellOptions;

    #[wasm_bindgen(method, getter)]
    fn term(this: &ShellOptions) -> String;
    #[wasm_bindgen(method, getter)]
    fn cols(this: &ShellOptions) -> u32;
    #[wasm_bindgen(method, getter)]
    fn rows(this: &ShellOptions) -> u32;
    #[wasm_bindgen(method, getter)]
    fn env(this: &ShellOptions) -> Option<Object>;
    #[wasm_bindgen(method, getter, js_name = onData)]
    fn on_data(this: &ShellOptions) -> Function;
    #[wasm_bindgen(method, getter, js_name = onExit)]
    fn on_exit(this: &ShellOptions) -> Function;
}

/// A running shell.
#[wasm_bindgen]
pub struct Shell {
    input: mpsc::UnboundedSender<Input>,
    waiting: Rc<Cell<usize>>,
    channel: Rc<ChannelWriteHalf<Msg>>,
}

struct Input {
    data: Bytes,
    accepted: oneshot::Sender<()>,
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell").finish_non_exhaustive()
    }
}

#[wasm_bindgen]
impl Shell {
    /// Sends input, in the order of the calls. Resolves when it is on its way, which is
    /// later while the shell does not read; fails when 8 MiB are waiting.
    pub async fn write(&self, data: Vec<u8>) -> Result<(), SshError> {
        let len = data.len();
        if self.waiting.get() + len > WAITING {
            return Err(SshError::TooMuch(WAITING_MIB));
        }
        let (accepted, done) = oneshot::channel();
        let input = Input { data: data.into(), accepted };
        self.input.send(input).map_err(|_| SshError::Closed)?;
        self.waiting.set(self.waiting.get() + len);
        done.await.map_err(|_| SshError::Closed)
    }

    /// Tells the shell its terminal's new size in characters.
    pub async fn resize(&self, cols: u32, rows: u32) -> Result<(), SshError> {
        Ok(self.channel.window_change(cols, rows, 0, 0).await?)
    }

    /// Ends the shell as closing a terminal window does.
    pub async fn close(&self) -> Result<(), SshError> {
        Ok(self.channel.close().await?)
    }
}

pub(crate) async fn start(channel: Channel<Msg>, options: ShellOptions) -> Result<Shell, SshError> {
    let (mut output, channel) = channel.split();
    for (name, value) in variables(options.env()) {
        channel.set_env(false, name, value).await?;
    }
    let (term, cols, rows) = (options.term(), options.cols(), options.rows());
    channel.request_pty(true, &term, cols, rows, 0, 0, &[]).await?;
    channel.request_shell(true).await?;
    granted(&mut output, "a terminal").await?;
    granted(&mut output, "a shell").await?;
    let over = CancellationToken::new();
    spawn_local(forward_output(output, options, over.clone()));
    Ok(Shell::new(Rc::new(channel), over))
}

/// The pairs of an object whose values are strings.
fn variables(env: Option<Object>) -> Vec<(String, String)> {
    let Some(env) = env else { return Vec::new() };
    let pair = |entry: JsValue| {
        let entry = Array::from(&entry);
        Some((entry.get(0).as_string()?, entry.get(1).as_string()?))
    };
    Object::entries(&env).iter().filter_map(pair).collect()
}

async fn granted(output: &mut ChannelReadHalf, what: &'static str) -> Result<(), SshError> {
    loop {
        match output.wait().await {
            Some(ChannelMsg::Success) => return Ok(()),
            Some(ChannelMsg::Failure) => return Err(SshError::Refused(what)),
            Some(_) => {}
            None => return Err(SshError::Closed),
        }
    }
}

/// Hands output to the page at the page's speed, then tells how the shell ended.
async fn forward_output(
    mut output: ChannelReadHalf,
    options: ShellOptions,
    over: CancellationToken,
) {
    let on_data = options.on_data();
    let exit = Object::new();
    while let Some(message) = output.wait().await {
        match message {
            ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
                deliver(&on_data, &data).await;
            }
            ChannelMsg::ExitStatus { exit_status } => set(&exit, "code", &exit_status.into()),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                set(&exit, "signal", &format!("{signal_name:?}").into());
            }
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    over.cancel();
    // A callback that throws is the page's business: the browser reports it.
    let _ = options.on_exit().call1(&JsValue::UNDEFINED, &exit);
}

/// A callback that throws has taken the data.
async fn deliver(on_data: &Function, data: &[u8]) {
    let Ok(taken) = on_data.call1(&JsValue::UNDEFINED, &Uint8Array::from(data)) else { return };
    if let Ok(taken) = taken.dyn_into::<Promise>() {
        let _ = JsFuture::from(taken).await;
    }
}

/// Setting a property of a fresh object cannot fail.
fn set(object: &Object, name: &str, value: &JsValue) {
    let _ = Reflect::set(object, &name.into(), value);
}

impl Shell {
    fn new(channel: Rc<ChannelWriteHalf<Msg>>, over: CancellationToken) -> Self {
        let (input, queue) = mpsc::unbounded_channel();
        let waiting = Rc::new(Cell::new(0));
        let forward = forward_input(queue, Rc::clone(&waiting), Rc::clone(&channel));
        spawn_local(async move {
            // The queue goes with it, so what waits in it fails.
            over.run_until_cancelled_owned(forward).await;
        });
        Self { input, waiting, channel }
    }
}

/// One piece after the other, as the shell's window allows.
async fn forward_input(
    mut queue: mpsc::UnboundedReceiver<Input>,
    waiting: Rc<Cell<usize>>,
    channel: Rc<ChannelWriteHalf<Msg>>,
) {
    while let Some(Input { data, accepted }) = queue.recv().await {
        let len = data.len();
        if channel.data_bytes(data).await.is_err() {
            break;
        }
        waiting.set(waiting.get().saturating_sub(len));
        let _ = accepted.send(());
    }
}
