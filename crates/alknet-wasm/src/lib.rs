//! SSH in a browser: the client side of an SSH session over a JavaScript stream pair, for
//! instance a WebTransport stream or a WebSocket dressed as one.
//!
//! ```js
//! import init, { connect } from "./wasm/alknet_wasm.js";
//!
//! await init();
//! const stream = await transport.createBidirectionalStream();
//! const ssh = await connect(stream.readable, stream.writable, {
//!   user: "ada",
//!   nodeId: "ed25519:3d40…",
//!   publicKey: "ssh-ed25519 AAAA…",
//!   sign: async (data) => new Uint8Array(await crypto.subtle.sign("Ed25519", key, data)),
//! });
//! const { code, stdout } = await ssh.exec("uptime");
//! ```
//!
//! # Model
//! - [`connect`] returns once the server has proven to be the node with that id and has
//!   accepted the user's key. The proof is an OpenSSH host certificate signed by the node's
//!   identity key; see [`HostError`] for what is checked. There is no "accept anyway".
//! - The private key stays where the page keeps it: the crate asks `sign` for a signature,
//!   so a key that WebCrypto refuses to export works.
//! - JavaScript objects belong to one thread and russh wants `Send`. Local tasks pump bytes
//!   between the JavaScript streams and queues; the SSH session sees the queues alone.
//!
//! # Invariants
//! - Writing never blocks the SSH session's loop, so it always reads: two ends that wait
//!   for each other's reads cannot arise. What is queued is bounded by the SSH windows, and
//!   by a hard limit that ends the session.
//! - A shell's output is taken only as fast as the `onData` callback's promises resolve;
//!   the SSH window then holds the server back.
//! - Every wait for the server before a shell or a command runs has a deadline.
//!
//! # Limits
//! Keys in use are as safe as the page: a script that runs in its origin can ask for
//! signatures too.

mod bridge;
mod client;
mod error;
mod exec;
mod host;
mod pipe;
mod shell;
mod sign;
mod ssh;
mod timer;

pub use self::{
    error::SshError,
    exec::ExecResult,
    host::HostError,
    shell::{Shell, ShellOptions},
    ssh::{ConnectOptions, Ssh, connect},
};

use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(text: &str);
}

/// Shows a panic's message in the console: without it a browser reports `unreachable`.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| console_error(&panic.to_string())));
}
