//! One command, its output collected.

use bytes::Bytes;
use js_sys::Uint8Array;
use russh::{Channel, ChannelMsg, client::Msg};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::SshError;

/// MiB of output that a page can ask for in one piece.
const LIMIT_MIB: u32 = 16;
const LIMIT: usize = 16 * 1024 * 1024;

/// SSH_EXTENDED_DATA_STDERR (RFC 4254 §5.2).
const STDERR: u32 = 1;

/// What a command wrote and how it ended.
#[wasm_bindgen]
#[derive(Debug, Default)]
pub struct ExecResult {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    code: Option<u32>,
    signal: Option<String>,
}

#[wasm_bindgen]
impl ExecResult {
    /// What it wrote to its standard output.
    #[wasm_bindgen(getter)]
    pub fn stdout(&self) -> Uint8Array {
        Uint8Array::from(&self.stdout[..])
    }

    /// What it wrote to its standard error.
    #[wasm_bindgen(getter)]
    pub fn stderr(&self) -> Uint8Array {
        Uint8Array::from(&self.stderr[..])
    }

    /// Its exit code, if it exited.
    #[wasm_bindgen(getter)]
    pub fn code(&self) -> Option<u32> {
        self.code
    }

    /// The signal that ended it, such as `TERM`, if one did.
    #[wasm_bindgen(getter)]
    pub fn signal(&self) -> Option<String> {
        self.signal.clone()
    }

    fn take(&mut self, ext: Option<u32>, data: &Bytes) -> Result<(), SshError> {
        if self.stdout.len() + self.stderr.len() + data.len() > LIMIT {
            return Err(SshError::TooMuch(LIMIT_MIB));
        }
        let out = if ext == Some(STDERR) { &mut self.stderr } else { &mut self.stdout };
        out.extend_from_slice(data);
        Ok(())
    }
}

pub(crate) async fn run(
    mut channel: Channel<Msg>,
    command: String,
) -> Result<ExecResult, SshError> {
    channel.exec(true, command).await?;
    channel.eof().await?;
    let result = collect(&mut channel).await;
    if result.is_err() {
        // Ends the command; if the session is gone, so is the command.
        let _ = channel.close().await;
    }
    result
}

async fn collect(channel: &mut Channel<Msg>) -> Result<ExecResult, SshError> {
    let mut result = ExecResult::default();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Failure => return Err(SshError::Refused("to run the command")),
            ChannelMsg::Data { data } => result.take(None, &data)?,
            ChannelMsg::ExtendedData { data, ext } => result.take(Some(ext), &data)?,
            ChannelMsg::ExitStatus { exit_status } => result.code = Some(exit_status),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                result.signal = Some(format!("{signal_name:?}"));
            }
            ChannelMsg::Close => return Ok(result),
            _ => {}
        }
    }
    Err(SshError::Closed)
}
