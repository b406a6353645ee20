//! The way into a running node for the commands beside it: a Unix socket in the state
//! folder. One connection carries one request and its answer, a line of JSON each.
//!
//! Only processes of the node's own account are answered: the folder is closed to others,
//! and the kernel says who has connected.

mod client;
mod server;
#[cfg(test)]
mod tests;

use std::{fmt, io};

use alknet_git::Event;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

pub(crate) use client::{ControlError, ask};
pub(crate) use server::Listener;

use crate::failure::Failure;

/// The socket in the state folder.
const SOCKET: &str = "run/control";
/// The longest request, in bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// What a node can be asked. The braces matter: a unit variant would take any fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Whether it answers: with [`Pong`].
    Ping {},
    /// To read its configuration again: with [`Reloaded`].
    Reload {},
    /// To tell who listens what a command has done to a repository: with nothing.
    Tell { event: Event },
}

/// The answer to a [`Request::Ping`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pong {
    pub(crate) pid: u32,
    pub(crate) version: String,
}

/// The answer to a [`Request::Reload`]: keys whose values in the file are not those that
/// held before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Reloaded {
    /// They hold now.
    pub(crate) changed: Vec<String>,
    /// They need a restart.
    pub(crate) restart: Vec<String>,
    /// A flag of `alknet serve` stands before them.
    pub(crate) overridden: Vec<String>,
}

impl Pong {
    pub(crate) fn of_this_process() -> Self {
        Self { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").into() }
    }
}

/// A line for each key.
impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { changed, restart, overridden } = self;
        let all = [
            (changed, "changed"),
            (restart, "needs a restart"),
            (overridden, "the command line of alknet serve stands before it"),
        ];
        let lines = all.iter().flat_map(|(keys, what)| keys.iter().map(move |key| (key, what)));
        let lines: Vec<String> = lines.map(|(key, what)| format!("{key}: {what}")).collect();
        f.write_str(if lines.is_empty() { "nothing changed" } else { "" })?;
        f.write_str(&lines.join("\n"))
    }
}

/// A line from the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    /// It is done.
    Ok(Value),
    /// It is not.
    Error {
        /// Why, with its causes.
        message: String,
        /// What to do about it.
        hints: Vec<String>,
    },
}

/// What a request is answered with, and how it fails.
pub(crate) type Outcome = Result<Value, Failure>;

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(value) => Self::Ok(value),
            Err(failure) => {
                Self::Error { message: failure.message(), hints: failure.hints().to_vec() }
            }
        }
    }
}

/// Reads one line of at most `max` bytes; longer ones and unfinished ones are errors.
async fn line(from: impl AsyncRead + Unpin, max: u64) -> io::Result<String> {
    let mut line = Vec::new();
    BufReader::new(from.take(max)).read_until(b'\n', &mut line).await?;
    match line.pop() {
        Some(b'\n') => {
            String::from_utf8(line).map_err(|it| io::Error::new(io::ErrorKind::InvalidData, it))
        }
        _ if line.len() as u64 + 1 >= max => Err(io::ErrorKind::FileTooLarge.into()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
