//! What a hook and its node say to each other: the version of all that follows, by the node;
//! one question as JSON behind its length; then texts for the pusher, and at last an answer,
//! each behind its kind and its length.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::push::{Certificate, RefChange, Refused};

/// Another one with each change of what is said.
const VERSION: u8 = 1;
/// What the pusher sees where the file of a running node's program has been replaced.
const REPLACED: &str = "it runs another version of its program, and has to be restarted";
/// The longest question or answer, in bytes.
const MAX: u32 = 128 << 20;
/// The longest text for the pusher.
const MAX_TEXT: usize = 64 << 10;
const TEXT: u8 = b't';
const ANSWER: u8 = b'a';

/// Which hook asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Hook {
    /// `pre-receive`
    Pre,
    /// `proc-receive`
    Proc,
    /// `post-receive`
    Post,
}

impl Hook {
    /// The hook of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "pre-receive" => Some(Self::Pre),
            "proc-receive" => Some(Self::Proc),
            "post-receive" => Some(Self::Post),
            _ => None,
        }
    }
}

/// What a hook asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) hook: Hook,
    pub(super) changes: Vec<RefChange>,
    pub(super) quarantine: Option<PathBuf>,
    pub(super) options: Vec<String>,
    pub(super) certificate: Option<Certificate>,
}

/// Asks the node, and shows meanwhile what it says.
pub(super) fn ask(mut node: UnixStream, question: &Question) -> io::Result<Refused> {
    let mut version = [0];
    node.read_exact(&mut version)?;
    if version != [VERSION] {
        return Err(io::Error::other(REPLACED));
    }
    let json = serde_json::to_vec(question)?;
    node.write_all(&length(json.len())?)?;
    node.write_all(&json)?;
    let mut buffer = Vec::new();
    loop {
        let mut head = [0; 5];
        node.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        buffer.resize(usize::try_from(bounded(length)?).map_err(io::Error::other)?, 0);
        node.read_exact(&mut buffer)?;
        match kind {
            // Whoever pushes may not listen any more.
            TEXT => drop(io::stderr().write_all(&buffer)),
            _ => return Ok(serde_json::from_slice(&buffer)?),
        }
    }
}

/// Greets a hook and reads what it asks. Not cancel safe.
pub(super) async fn read(hook: &mut tokio::net::UnixStream) -> io::Result<Question> {
    hook.write_u8(VERSION).await?;
    let mut length = [0; 4];
    hook.read_exact(&mut length).await?;
    let length = bounded(length)?;
    let mut json = Vec::new();
    hook.take(length.into()).read_to_end(&mut json).await?;
    Ok(serde_json::from_slice(&json)?)
}

/// Has a hook show a text. Not cancel safe.
pub(super) async fn tell(hook: &mut tokio::net::UnixStream, text: &[u8]) -> io::Result<()> {
    for piece in text.chunks(MAX_TEXT) {
        write(hook, TEXT, piece).await?;
    }
    Ok(())
}

/// Answers a hook. Not cancel safe.
pub(super) async fn answer(hook: &mut tokio::net::UnixStream, refused: &Refused) -> io::Result<()> {
    write(hook, ANSWER, &serde_json::to_vec(refused)?).await
}

async fn write(hook: &mut tokio::net::UnixStream, kind: u8, bytes: &[u8]) -> io::Result<()> {
    hook.write_u8(kind).await?;
    hook.write_all(&length(bytes.len())?).await?;
    hook.write_all(bytes).await
}

fn length(length: usize) -> io::Result<[u8; 4]> {
    let length = u32::try_from(length).ok().filter(|length| *length <= MAX);
    Ok(length.ok_or(io::ErrorKind::FileTooLarge)?.to_be_bytes())
}

fn bounded(length: [u8; 4]) -> io::Result<u32> {
    let length = u32::from_be_bytes(length);
    if length > MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_is_read_and_its_answer_arrives() {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let mut far = tokio::net::UnixStream::from_std(far).unwrap();
        let (zero, one) = ("0".repeat(40), "1".repeat(40));
        let change = RefChange::from_line(&format!("{zero} {one} refs/heads/x")).unwrap();
        let question = Question {
            hook: Hook::Pre,
            changes: vec![change],
            quarantine: Some("/q".into()),
            options: vec!["o".into()],
            certificate: None,
        };
        let asking = tokio::task::spawn_blocking(move || ask(near, &question));
        let read = read(&mut far).await.unwrap();
        assert_eq!(read.hook, Hook::Pre);
        assert_eq!(read.changes[0].to_line(), format!("{zero} {one} refs/heads/x"));
        assert_eq!((read.quarantine, read.options), (Some("/q".into()), vec!["o".to_owned()]));
        let refused = Refused::from([("refs/heads/x".to_owned(), "no".to_owned())]);
        answer(&mut far, &refused).await.unwrap();
        assert_eq!(asking.await.unwrap().unwrap(), refused);
    }

    #[tokio::test]
    async fn a_length_that_is_too_much_and_a_node_that_goes_away_are_errors() {
        let (mut near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let mut far = tokio::net::UnixStream::from_std(far).unwrap();
        near.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(read(&mut far).await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        drop(far);
        assert!(ask(near, &nothing()).is_err());
    }

    fn nothing() -> Question {
        Question {
            hook: Hook::Pre,
            changes: Vec::new(),
            quarantine: None,
            options: Vec::new(),
            certificate: None,
        }
    }

    #[test]
    fn a_node_of_another_version_is_asked_nothing() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(&[VERSION + 1]).unwrap();
        assert_eq!(ask(near, &nothing()).unwrap_err().to_string(), REPLACED);
        let mut said = Vec::new();
        far.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"");
    }
}
