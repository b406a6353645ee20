//! Commands, data and answers in packet lines (gitprotocol-common).

use std::{io, time::Duration};

use gix_packetline::{
    PacketLineRef,
    decode::{PacketLineOrWantedSize, hex_prefix},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter},
    time::timeout,
};

use crate::lfs::LfsError;

/// How long a client may think between two commands.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// How long it may send or take nothing within one.
const STALL: Duration = Duration::from_secs(60);
/// What a packet line's length takes, and counts itself.
const LENGTH: usize = 4;
/// How much is read and written at once.
const BUFFER: usize = 64 * 1024;
/// The most arguments of a command.
const MAX_ARGUMENTS: usize = 64;
/// How much is read and forgotten of what is not wanted, in bytes.
const MAX_SKIPPED: u64 = 64 * 1024 * 1024;

/// What a client asks for: a line and its arguments.
#[derive(Debug)]
pub(super) struct Command {
    line: String,
    arguments: Vec<String>,
    /// Whether lines or data stand behind the arguments.
    pub(super) goes_on: bool,
}

impl Command {
    /// The first word, and what comes behind it.
    pub(super) fn split(&self) -> (&str, &str) {
        self.line.split_once(' ').unwrap_or((&self.line, ""))
    }

    /// The value of an argument, if it has one.
    pub(super) fn argument(&self, name: &str) -> Option<&str> {
        let named = |argument: &'_ String| argument.split_once('=').is_some_and(|(n, _)| n == name);
        let found = self.arguments.iter().find(|argument| named(argument))?;
        found.split_once('=').map(|(_, value)| value)
    }
}

/// Both directions of a session.
pub(super) struct Wire<R, W> {
    input: BufReader<R>,
    output: BufWriter<W>,
    line: Vec<u8>,
    /// Whether the command that was read last has more to it.
    pending: bool,
}

enum Packet<'a> {
    Data(&'a [u8]),
    Delimiter,
    Flush,
}

impl<R, W> Wire<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    pub(super) fn new(input: R, output: W) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER, input),
            output: BufWriter::with_capacity(BUFFER, output),
            line: Vec::new(),
            pending: false,
        }
    }

    /// The next command; `None` when the client has ended its direction instead.
    pub(super) async fn command(&mut self) -> Result<Option<Command>, LfsError> {
        if within(IDLE, self.begins()).await? {
            return Ok(None);
        }
        let line = match self.packet().await? {
            Packet::Data(line) => text(line)?,
            Packet::Delimiter | Packet::Flush => return Err(LfsError::Protocol),
        };
        let mut arguments = Vec::new();
        loop {
            match self.packet().await? {
                Packet::Data(argument) if arguments.len() < MAX_ARGUMENTS => {
                    arguments.push(text(argument)?);
                }
                Packet::Data(_) => return Err(LfsError::Protocol),
                Packet::Delimiter => {
                    self.pending = true;
                    return Ok(Some(Command { line, arguments, goes_on: true }));
                }
                Packet::Flush => return Ok(Some(Command { line, arguments, goes_on: false })),
            }
        }
    }

    /// Whether the input is at its end.
    async fn begins(&mut self) -> io::Result<bool> {
        use tokio::io::AsyncBufReadExt as _;
        Ok(self.input.fill_buf().await?.is_empty())
    }

    /// The lines behind the arguments of a command; `None` if there are too many.
    pub(super) async fn lines(
        &mut self,
        command: &Command,
        most: usize,
    ) -> Result<Option<Vec<String>>, LfsError> {
        let mut lines = Vec::new();
        while command.goes_on
            && let Some(line) = self.piece().await?
        {
            if lines.len() == most {
                self.skip(command).await?;
                return Ok(None);
            }
            lines.push(text(line)?);
        }
        Ok(Some(lines))
    }

    /// The next data behind the arguments of a command; `None` at the end of them.
    pub(super) async fn piece(&mut self) -> Result<Option<&[u8]>, LfsError> {
        // Not `packet`, whose borrow would outlive the branch that ends it.
        match self.length().await? {
            Some(Packet::Flush) => {
                self.pending = false;
                Ok(None)
            }
            Some(Packet::Data(_) | Packet::Delimiter) => Err(LfsError::Protocol),
            None => Ok(Some(&self.line)),
        }
    }

    /// Reads and forgets the rest of a command.
    pub(super) async fn skip(&mut self, command: &Command) -> Result<(), LfsError> {
        let mut skipped = 0;
        while command.goes_on && self.pending {
            let Some(piece) = self.piece().await? else { break };
            skipped += piece.len() as u64;
            if skipped > MAX_SKIPPED {
                return Err(LfsError::Protocol);
            }
        }
        Ok(())
    }

    async fn packet(&mut self) -> Result<Packet<'_>, LfsError> {
        Ok(match self.length().await? {
            Some(special) => special,
            None => Packet::Data(&self.line),
        })
    }

    /// Reads a packet; `None` if it is data, which then is in `line`.
    async fn length(&mut self) -> Result<Option<Packet<'static>>, LfsError> {
        let mut length = [0; LENGTH];
        within(STALL, self.input.read_exact(&mut length)).await?;
        match hex_prefix(&length) {
            Ok(PacketLineOrWantedSize::Line(PacketLineRef::Flush)) => Ok(Some(Packet::Flush)),
            Ok(PacketLineOrWantedSize::Line(PacketLineRef::Delimiter)) => {
                Ok(Some(Packet::Delimiter))
            }
            Ok(PacketLineOrWantedSize::Wanted(length)) => {
                self.line.resize(usize::from(length), 0);
                within(STALL, self.input.read_exact(&mut self.line)).await?;
                Ok(None)
            }
            Ok(PacketLineOrWantedSize::Line(_)) | Err(_) => Err(LfsError::Protocol),
        }
    }

    /// Sends a line of text.
    pub(super) async fn text(&mut self, line: &str) -> Result<(), LfsError> {
        let line = format!("{:04x}{line}\n", line.len() + LENGTH + 1);
        self.send(line.as_bytes()).await
    }

    /// Sends data, which must fit into a packet line.
    pub(super) async fn data(&mut self, data: &[u8]) -> Result<(), LfsError> {
        self.send(format!("{:04x}", data.len() + LENGTH).as_bytes()).await?;
        self.send(data).await
    }

    /// Sends what parts arguments from what comes behind them.
    pub(super) async fn delimiter(&mut self) -> Result<(), LfsError> {
        self.send(b"0001").await
    }

    /// Ends a message.
    pub(super) async fn end(&mut self) -> Result<(), LfsError> {
        self.send(b"0000").await?;
        within(STALL, self.output.flush()).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), LfsError> {
        within(STALL, self.output.write_all(bytes)).await
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, LfsError> {
    Ok(timeout(limit, work).await.map_err(|_| LfsError::Stalled)??)
}

/// A line without its end.
fn text(line: &[u8]) -> Result<String, LfsError> {
    let line = std::str::from_utf8(line).map_err(|_| LfsError::Protocol)?;
    Ok(line.strip_suffix('\n').unwrap_or(line).to_owned())
}
