//! A program on a channel, from its start to the channel's end.

use std::{
    future::{Future, pending},
    io,
    os::unix::process::ExitStatusExt as _,
    pin::pin,
    process::ExitStatus,
    time::Duration,
};

use alknet_host::{Pipes, Process, RecordError, Recording, Rest, Terminal};
use bytes::BytesMut;
use russh::{
    Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf,
    server::{Handle, Msg},
};
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{queue::Backlog, signal};

/// How much of a program's output is read at once.
const READ: usize = 64 * 1024;
/// The number of the standard error stream (RFC 4254, section 5.2).
const STDERR: u32 = 1;
/// The exit status of a program whose own could not be had.
pub(crate) const UNKNOWN: u32 = 255;

/// A started program and the channel it belongs to.
pub(crate) struct Run {
    pub(crate) process: Process,
    pub(crate) output: Output,
    pub(crate) recording: Option<Recording>,
    pub(crate) channel: Channel<Msg>,
    pub(crate) handle: Handle,
    pub(crate) signals: mpsc::Receiver<Signal>,
    /// Cancelled when the channel is closed or its transport is gone, and by the end of
    /// this run.
    pub(crate) gone: CancellationToken,
    pub(crate) backlog: Backlog,
    pub(crate) grace: Duration,
}

/// How a program talks to its client.
pub(crate) enum Output {
    /// Over three pipes.
    Pipes(Pipes),
    /// Over a terminal.
    Terminal(Terminal),
}

impl Run {
    /// Serves the program until it has exited and all of its output is sent. When the
    /// channel goes first, the program is told to hang up.
    pub(crate) async fn serve(self) {
        let Self { mut process, output, recording, channel, handle, signals, gone, .. } = self;
        let (backlog, grace) = (self.backlog, self.grace);
        let _gone = gone.clone().drop_guard();
        let (read, write) = channel.split();
        let wire = Wire { write, handle, backlog, recording: recording.clone() };
        let served = async {
            let status = match output {
                Output::Pipes(pipes) => wire.pipes(&mut process, pipes, read, signals).await,
                Output::Terminal(terminal) => {
                    wire.terminal(&mut process, terminal, read, signals).await
                }
            };
            if let Some(recording) = &wire.recording {
                recording.clone().finish(status.as_ref().ok().copied()).await;
            }
            wire.report(status).await;
        };
        let failed = async {
            match &recording {
                Some(recording) => recording.failed().await,
                None => pending().await,
            }
        };
        let ended = tokio::select! {
            biased;
            error = failed => Some(error),
            () = served => return,
            () = gone.cancelled() => None,
        };
        if let Some(error) = ended {
            wire.complain(&error).await;
        }
        process.hang_up(grace).await;
        if let Some(recording) = recording {
            recording.finish(None).await;
        }
    }
}

/// The sending side of a channel.
struct Wire {
    write: ChannelWriteHalf<Msg>,
    handle: Handle,
    backlog: Backlog,
    recording: Option<Recording>,
}

impl Wire {
    /// Serves a program with pipes. As with OpenSSH the output ends when nobody has the
    /// pipes open any more, which may be after the program itself has exited.
    async fn pipes(
        &self,
        process: &mut Process,
        pipes: Pipes,
        read: ChannelReadHalf,
        signals: mpsc::Receiver<Signal>,
    ) -> io::Result<ExitStatus> {
        let Pipes { stdin, stdout, stderr } = pipes;
        let output = async {
            tokio::join!(
                self.forward(stdout, None, pending()),
                self.forward(stderr, Some(STDERR), pending())
            );
        };
        let exited = CancellationToken::new();
        supervise(process, &exited, signals, output, feed(read, stdin)).await
    }

    /// Serves a program on a terminal. Its output ends with the program: what stays behind
    /// in the background does not keep the channel open.
    async fn terminal(
        &self,
        process: &mut Process,
        terminal: Terminal,
        read: ChannelReadHalf,
        signals: mpsc::Receiver<Signal>,
    ) -> io::Result<ExitStatus> {
        let exited = CancellationToken::new();
        let output = self.forward(Some(terminal.clone()), None, exited.cancelled());
        let keyboard = Keyboard { terminal: terminal.clone(), recording: self.recording.clone() };
        let input = keyboard.feed(read);
        supervise(process, &exited, signals, output, input).await
    }

    /// Sends what a program writes, as fast as the channel takes it.
    async fn forward(
        &self,
        source: Option<impl AsyncRead + Unpin>,
        stream: Option<u32>,
        exited: impl Future<Output = ()>,
    ) {
        let Some(mut source) = source else { return };
        let mut exited = pin!(exited);
        let mut rest: Option<Rest> = None;
        let mut buffer = BytesMut::new();
        loop {
            self.backlog.ready().await;
            if buffer.capacity() < READ / 2 {
                buffer.reserve(READ);
            }
            let reading = source.read_buf(&mut buffer);
            let read = match &mut rest {
                Some(rest) => rest.read(reading).await,
                None => tokio::select! {
                    biased;
                    () = &mut exited => {
                        rest = Some(Rest::default());
                        continue;
                    }
                    read = reading => read,
                },
            };
            if !matches!(read, Ok(1..)) {
                return;
            }
            let data = buffer.split().freeze();
            // Nobody sees what is not recorded.
            if let Some(recording) = &self.recording
                && recording.output(&data).await.is_err()
            {
                return;
            }
            let sent = match stream {
                None => self.write.data_bytes(data).await,
                Some(stream) => self.write.extended_data_bytes(stream, data).await,
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// Tells why the session ends and closes the channel.
    async fn complain(&self, error: &RecordError) {
        tracing::error!(%error, "a session was ended");
        let _ = self.write.data_bytes(format!("\r\nalknet: {error}\r\n")).await;
        let _ = self.write.exit_status(UNKNOWN).await;
        let _ = self.write.close().await;
    }

    /// Tells how the program ended and closes the channel.
    ///
    /// The end of the output is told no earlier: OpenSSH's client answers it by closing the
    /// channel, after which the status of a program that still runs could not be told.
    async fn report(&self, status: io::Result<ExitStatus>) {
        let _ = self.write.eof().await;
        if let Ok(status) = &status
            && let Some(number) = status.signal()
        {
            let (id, name) = (self.write.id(), signal::to_wire(number));
            let (core, text, language) = (status.core_dumped(), String::new(), String::new());
            let _ = self.handle.exit_signal_request(id, name, core, text, language).await;
        } else {
            let code = status.ok().and_then(|status| u32::try_from(status.code()?).ok());
            let _ = self.write.exit_status(code.unwrap_or(UNKNOWN)).await;
        }
        let _ = self.write.close().await;
    }
}

/// Runs the flows of a program until it has exited and its output has ended.
async fn supervise(
    process: &mut Process,
    exited: &CancellationToken,
    mut signals: mpsc::Receiver<Signal>,
    output: impl Future<Output = ()>,
    input: impl Future<Output = ()>,
) -> io::Result<ExitStatus> {
    let (mut output, mut input) = (pin!(output), pin!(input));
    let (mut sent, mut fed) = (false, false);
    let mut status = None;
    loop {
        tokio::select! {
            ended = process.exited(), if status.is_none() => {
                status = Some(ended);
                exited.cancel();
            }
            () = &mut output, if !sent => sent = true,
            () = &mut input, if !fed => fed = true,
            Some(signal) = signals.recv() => process.signal(signal),
        }
        if sent && let Some(status) = status.take() {
            return status;
        }
    }
}

/// Gives a program what the client sends, until it ends. Input that the program does not
/// want any more is dropped, so that a client that goes on sending still gets the output.
async fn feed(mut read: ChannelReadHalf, mut sink: Option<impl AsyncWrite + Unpin>) {
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                if let Some(open) = &mut sink
                    && open.write_all(&data).await.is_err()
                {
                    sink = None;
                }
            }
            ChannelMsg::Eof => sink = None,
            _ => {}
        }
    }
}

/// What a client types on a terminal, which has no end that could be closed on its own.
struct Keyboard {
    terminal: Terminal,
    recording: Option<Recording>,
}

impl Keyboard {
    async fn feed(mut self, mut read: ChannelReadHalf) {
        while let Some(message) = read.wait().await {
            let ChannelMsg::Data { data } = message else { continue };
            if let Some(recording) = &self.recording
                && recording.input(&data).await.is_err()
            {
                continue;
            }
            // A terminal that nobody reads any more is noticed by its output.
            let _ = self.terminal.write_all(&data).await;
        }
    }
}
