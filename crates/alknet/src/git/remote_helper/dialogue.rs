//! What git says to a remote helper before it speaks to the node, line by line.

use std::io::{self, Read, Write};

use alknet_git::Service;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// The longest command of git's, in bytes.
const LINE: usize = 1024;
/// Options that change nothing here: git and the node show progress between themselves.
const OPTIONS: [&str; 2] = ["verbosity", "progress"];

/// What git wants in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What comes after the answer is an exchange with the node.
    Exchange(Service),
    /// Nothing more.
    Nothing,
}

/// git said something that this helper has not offered.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialogueError {
    #[error("git could not be read from, or written to")]
    Io(#[from] io::Error),
    #[error("git gave a command of more than {LINE} bytes")]
    TooLong,
    #[error("git gave the command {0:?}, which this helper does not know")]
    Unknown(String),
    #[error("git asks for the service {0:?}, which is not to be had")]
    Service(String),
}

/// Answers git until it knows what it wants. Reads not a byte more: what follows is for the
/// node.
pub(super) fn hold(from: &mut impl Read, to: &mut impl Write) -> Result<Wanted, DialogueError> {
    while let Some(line) = line(from)? {
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "capabilities" => to.write_all(b"connect\noption\n\n")?,
            "option" => to.write_all(option(rest).as_bytes())?,
            "connect" => {
                let service = Service::named(rest);
                return service
                    .map(Wanted::Exchange)
                    .ok_or_else(|| DialogueError::Service(rest.to_owned()));
            }
            "" => break,
            _ => return Err(DialogueError::Unknown(line)),
        }
        to.flush()?;
    }
    Ok(Wanted::Nothing)
}

/// Tells git that it speaks to the node from now on.
pub(super) async fn established(to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    to.write_all(b"\n").await?;
    to.flush().await
}

fn option(text: &str) -> &'static str {
    let name = text.split(' ').next().unwrap_or_default();
    if OPTIONS.contains(&name) { "ok\n" } else { "unsupported\n" }
}

/// A line without its end; `None` where there is no more.
fn line(from: &mut impl Read) -> Result<Option<String>, DialogueError> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        if from.read(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte {
            [b'\n'] => return Ok(Some(String::from_utf8_lossy(&line).into_owned())),
            _ if line.len() == LINE => return Err(DialogueError::TooLong),
            [byte] => line.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(mut text: &[u8]) -> (Result<Wanted, DialogueError>, String, usize) {
        let mut answers = Vec::new();
        let wanted = hold(&mut text, &mut answers);
        (wanted, String::from_utf8(answers).unwrap(), text.len())
    }

    #[test]
    fn git_is_answered_and_what_follows_is_left_for_the_node() {
        let text = b"capabilities\noption verbosity 1\noption progress true\n\
                     option servpath /bin/evil\nconnect git-upload-pack\n0000rest";
        let (wanted, answers, left) = said(text);
        assert_eq!(wanted.unwrap(), Wanted::Exchange(Service::UploadPack));
        assert_eq!(answers, "connect\noption\n\nok\nok\nunsupported\n");
        assert_eq!(left, "0000rest".len());
    }

    #[test]
    fn git_may_want_nothing() {
        for text in [&b""[..], b"capabilities\n", b"capabilities\n\n", b"\nconnect x\n", b"cut"] {
            assert_eq!(said(text).0.unwrap(), Wanted::Nothing);
        }
    }

    #[test]
    fn what_was_not_offered_is_refused() {
        for text in [
            &b"list\n"[..],
            b"fetch x refs/heads/main\n",
            b"connect git-shell\n",
            b"connect git-upload-pack --exec=x\n",
            b"connect\n",
        ] {
            assert!(said(text).0.is_err(), "{text:?}");
        }
        let endless = vec![b'a'; 1 << 20];
        let (wanted, _, left) = said(&endless);
        assert!(matches!(wanted, Err(DialogueError::TooLong)) && left > endless.len() / 2);
    }
}
