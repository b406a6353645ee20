//! A viewer's end of its session, without a byte of input or output of its own.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};

use crate::wire::{Attached, Exit, Frame, FromNode, MAX_DATA, Refusal};

/// Input that is kept until the node has it, in bytes.
const MAX_INPUT: usize = 256 * 1024;
/// The longest screen that is taken, in bytes.
const MAX_SCREEN: u64 = 16 * 1024 * 1024;

/// What has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A screen begins: the terminal has to be reset.
    Blank,
    /// A piece of a screen.
    Paint(Bytes),
    /// What the program wrote, up to this offset.
    Output(Bytes, u64),
    /// Something around the viewer.
    Notice(FromNode),
    /// The program has ended.
    Exited(Exit),
    /// The node has ended the attachment.
    Refused(Refusal),
    /// A sign of life is asked for.
    Ping(u64),
    /// Nothing to do.
    Nothing,
}

/// The node has broken the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node broke the protocol: {0}")]
pub(crate) struct Broken(&'static str);

/// What a viewer has, and what the node has of it.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Input that the node has not acknowledged.
    input: VecDeque<u8>,
    /// The offset of its first byte.
    base: u64,
    /// What of it was sent on this attachment.
    sent: u64,
    /// What the program there has taken. The window counts from here: what the node has and
    /// the program has not fills it.
    acked: u64,
    input_window: u64,
    output_window: u64,
    /// Output that has arrived.
    output: u64,
    /// Output that is on the terminal.
    written: u64,
    /// What of `written` the node was told.
    told: u64,
    /// Whether output can go on from `output`.
    whole: bool,
    /// What is left of a screen, and where output goes on after it.
    painting: Option<(u64, u64)>,
}

impl State {
    /// Where the viewer is, to go on from there.
    pub(crate) fn place(&self) -> Option<u64> {
        self.whole.then_some(self.output)
    }

    /// A new attachment stands.
    pub(crate) fn attached(&mut self, attached: &Attached) -> Result<(), Broken> {
        let end = self.base + self.input.len() as u64;
        if self.base == 0 && self.input.is_empty() {
            // A viewer whose memory is gone goes on where the node is.
            self.base = attached.input;
        } else if !(self.base..=end).contains(&attached.input) {
            return Err(Broken("it counts other input than was typed"));
        }
        if attached.resumed {
            if attached.output > self.output {
                return Err(Broken("it skips output"));
            }
            self.whole = true;
        } else {
            self.whole = false;
        }
        self.arrived(attached.input);
        self.sent = self.base;
        self.input_window = attached.input_window;
        self.output_window = attached.output_window;
        self.told = 0;
        self.painting = None;
        Ok(())
    }

    /// The node has this much of the input.
    fn arrived(&mut self, offset: u64) {
        let count = usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let count = count.min(self.input.len());
        self.input.drain(..count);
        self.base += count as u64;
        self.sent = self.sent.max(self.base);
    }

    /// Something has arrived.
    pub(crate) fn heard(&mut self, frame: Frame) -> Result<Heard, Broken> {
        Ok(match frame {
            Frame::Output(offset, bytes) => return self.output(offset, bytes),
            Frame::Screen(bytes) => return self.paint(bytes),
            Frame::Ack(offset) if offset > self.sent => {
                return Err(Broken("it acknowledges input that was not sent"));
            }
            Frame::Ack(offset) => {
                self.arrived(offset);
                self.acked = self.acked.max(offset);
                Heard::Nothing
            }
            Frame::Ping(token) => Heard::Ping(token),
            Frame::Control(json) => {
                let read = FromNode::read(&json).map_err(|_| Broken("unreadable JSON"))?;
                return self.control(read);
            }
            _ => Heard::Nothing,
        })
    }

    fn control(&mut self, control: FromNode) -> Result<Heard, Broken> {
        Ok(match control {
            FromNode::Screen { bytes, .. } if bytes > MAX_SCREEN => {
                return Err(Broken("a screen is too large"));
            }
            FromNode::Screen { output, .. } if output < self.output && self.whole => {
                return Err(Broken("a screen goes back"));
            }
            FromNode::Screen { bytes, output, .. } => {
                self.whole = false;
                self.painting = Some((bytes, output));
                Heard::Blank
            }
            notice @ FromNode::Notice { .. } => Heard::Notice(notice),
            FromNode::Exited(exit) => Heard::Exited(exit),
            FromNode::Error(refusal) => Heard::Refused(refusal),
            _ => Heard::Nothing,
        })
    }

    fn paint(&mut self, bytes: Bytes) -> Result<Heard, Broken> {
        let Some((left, _)) = &mut self.painting else {
            return Err(Broken("a screen that was not announced"));
        };
        *left = left.checked_sub(bytes.len() as u64).ok_or(Broken("a screen is too long"))?;
        Ok(Heard::Paint(bytes))
    }

    /// Whether the screen that arrives is whole; to be asked after each piece.
    pub(crate) fn painted(&mut self) -> Option<u64> {
        let (_, output) = self.painting.take_if(|(left, _)| *left == 0)?;
        (self.output, self.whole) = (output, true);
        Some(output)
    }

    fn output(&mut self, offset: u64, mut bytes: Bytes) -> Result<Heard, Broken> {
        if !self.whole {
            return Err(Broken("output without a screen"));
        }
        let Some(known) = self.output.checked_sub(offset) else {
            return Err(Broken("output is missing"));
        };
        bytes.advance(usize::try_from(known).unwrap_or(usize::MAX).min(bytes.len()));
        if bytes.is_empty() {
            return Ok(Heard::Nothing);
        }
        self.output += bytes.len() as u64;
        if self.output > self.written.max(self.told) + self.output_window {
            return Err(Broken("more output than its window"));
        }
        Ok(Heard::Output(bytes, self.output))
    }

    /// Everything before `offset` is on the terminal.
    pub(crate) fn written(&mut self, offset: u64) {
        self.written = self.written.max(offset);
    }

    /// How much more may be typed now.
    pub(crate) fn room(&self) -> usize {
        MAX_INPUT.saturating_sub(self.input.len())
    }

    /// Something was typed: no more than there is [`room`](Self::room) for.
    pub(crate) fn typed(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
    }

    /// Whether the node has all that was typed.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.input.is_empty()
    }

    /// What to send next, if anything.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        if self.written > self.told {
            self.told = self.written;
            return Some(Frame::Ack(self.written));
        }
        let skip = usize::try_from(self.sent - self.base).unwrap_or(usize::MAX);
        let window = self.acked.saturating_add(self.input_window).saturating_sub(self.sent);
        let room = usize::try_from(window).unwrap_or(usize::MAX).min(MAX_DATA);
        let until = self.input.len().min(skip.saturating_add(room));
        if until <= skip {
            return None;
        }
        let bytes: Bytes = self.input.range(skip..until).copied().collect();
        let offset = self.sent;
        self.sent += bytes.len() as u64;
        Some(Frame::Input(offset, bytes))
    }
}
