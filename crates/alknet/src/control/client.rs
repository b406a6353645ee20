//! The other commands' end.

use std::{io, time::Duration};

use serde::de::DeserializeOwned;
use tokio::{io::AsyncWriteExt as _, time::timeout};

use super::{Answer, Request, line};
use crate::home::Home;

/// How long a node may take to answer, which is longer than it gives itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// The node of a state folder gave no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ControlError {
    /// There is no node.
    #[error("no node serves this state folder")]
    NotServed,
    /// It could not be asked.
    #[error("the node could not be asked")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("the node did not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// It speaks another version of the protocol.
    #[error("the node's answer is not understood")]
    Malformed(#[from] serde_json::Error),
    /// It answered that it could not.
    #[error("{message}")]
    Refused {
        /// Its words.
        message: String,
        /// Its hints.
        hints: Vec<String>,
    },
}

impl ControlError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NotServed => Some("start one with `alknet serve`".into()),
            Self::Malformed(_) => Some("it may be of another version: restart it".into()),
            Self::Refused { hints, .. } => (!hints.is_empty()).then(|| hints.join(" ")),
            Self::Io(_) | Self::TimedOut => None,
        }
    }
}

/// Asks the node that serves `home`. Cancelling it leaves the node to finish what was asked.
pub(crate) async fn ask<T: DeserializeOwned>(
    home: &Home,
    request: Request,
) -> Result<T, ControlError> {
    let answer = timeout(PATIENCE, exchange(home, request));
    let answer = answer.await.map_err(|_| ControlError::TimedOut)??;
    match serde_json::from_str(&answer)? {
        Answer::Ok(value) => Ok(serde_json::from_value(value)?),
        Answer::Error { message, hints } => Err(ControlError::Refused { message, hints }),
    }
}

async fn exchange(home: &Home, request: Request) -> Result<String, ControlError> {
    let mut stream = home.connect(super::SOCKET).await?.ok_or(ControlError::NotServed)?;
    let mut text = serde_json::to_vec(&request)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    Ok(line(&mut stream, super::MAX_ANSWER).await?)
}
