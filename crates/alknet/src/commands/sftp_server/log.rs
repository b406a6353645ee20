//! Where `alknet sftp-server` writes what it has to say.

use std::{
    io::{self, IsTerminal as _, Write},
    os::unix::net::UnixDatagram,
    sync::Arc,
};

use alknet_core::{AuditEvent, AuditSink};
use tracing_subscriber::filter::LevelFilter;

/// What is logged, as OpenSSH names it.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Level {
    Quiet,
    Fatal,
    Error,
    Info,
    Verbose,
    Debug,
    Debug1,
    Debug2,
    Debug3,
}

/// A facility of the system's log (RFC 3164, section 4.1.1), as OpenSSH names them.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Facility {
    Daemon = 3,
    User = 1,
    Auth = 4,
    Authpriv = 10,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

/// The severity of every message (RFC 3164): informational.
const SEVERITY: u32 = 6;
/// The longest message to the system's log, in bytes.
const LONGEST: usize = 2048;

/// Starts to log, for the whole process.
pub(super) fn start(level: Level, facility: Facility, stderr: bool) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::from(level))
        // To say on stderr that stderr is gone would panic.
        .log_internal_errors(false);
    match system_log() {
        Some(socket) if !stderr => {
            let (priority, socket) = (facility as u32 * 8 + SEVERITY, Arc::new(socket));
            let writer = move || Message { socket: socket.clone(), priority };
            builder.with_writer(writer).without_time().with_ansi(false).init();
        }
        _ => builder.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init(),
    }
}

fn system_log() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect("/dev/log").ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// One message to the system's log, written in one piece.
struct Message {
    socket: Arc<UnixDatagram>,
    priority: u32,
}

impl Write for Message {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let head = format!("<{}>alknet-sftp-server[{}]: ", self.priority, std::process::id());
        let cut = text.get(..LONGEST).unwrap_or(text).trim_ascii_end();
        self.socket.send(&[head.as_bytes(), cut].concat())?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs what clients do.
pub(super) struct Deeds;

impl AuditSink for Deeds {
    fn record(&self, event: AuditEvent) {
        let AuditEvent {
            event, subject: path, name: other, reason, bytes_read, bytes_written, ..
        } = event;
        tracing::info!(path, other, reason, bytes_read, bytes_written, "{event}");
    }
}

/// Reports what clients do to the node that started this: lines of JSON on stderr.
pub(super) struct Report;

impl AuditSink for Report {
    fn record(&self, event: AuditEvent) {
        if let Ok(mut line) = serde_json::to_vec(&event) {
            line.push(b'\n');
            // A node that is gone needs no report.
            let _ = io::stderr().lock().write_all(&line);
        }
    }
}
