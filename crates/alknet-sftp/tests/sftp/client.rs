//! A client that says whatever it is told to.

use std::{path::Path, time::Duration};

use alknet_sftp::{Export, Grant, Rules, Session, SessionError, SftpLimits, Shared, View};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinHandle,
    time::timeout,
};

/// Enough for whatever is under way.
const SOON: Duration = Duration::from_secs(60);

pub(crate) const READ: u32 = 1;
pub(crate) const WRITE: u32 = 2;
pub(crate) const APPEND: u32 = 4;
pub(crate) const CREATE: u32 = 8;
pub(crate) const TRUNCATE: u32 = 16;
pub(crate) const EXCLUDE: u32 = 32;

/// Status codes.
pub(crate) const OK: u32 = 0;
pub(crate) const EOF: u32 = 1;
pub(crate) const NO_SUCH_FILE: u32 = 2;
pub(crate) const DENIED: u32 = 3;
pub(crate) const FAILURE: u32 = 4;
pub(crate) const BAD_MESSAGE: u32 = 5;
pub(crate) const UNSUPPORTED: u32 = 8;

pub(crate) struct Client {
    pub(crate) stream: DuplexStream,
    server: JoinHandle<Result<(), SessionError>>,
    next: u32,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) kind: u8,
    pub(crate) id: u32,
    pub(crate) body: Vec<u8>,
}

/// The fields of a packet.
#[derive(Default, Clone)]
pub(crate) struct Fields(pub(crate) Vec<u8>);

impl Fields {
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn text(mut self, text: impl AsRef<[u8]>) -> Self {
        self = self.u32(text.as_ref().len() as u32);
        self.0.extend(text.as_ref());
        self
    }
}

pub(crate) fn fields() -> Fields {
    Fields::default()
}

pub(crate) fn packet(kind: u8, id: u32, fields: Fields) -> Vec<u8> {
    let length = (5 + fields.0.len()) as u32;
    [&length.to_be_bytes()[..], &[kind], &id.to_be_bytes(), &fields.0].concat()
}

impl Client {
    /// Whose session has not begun.
    pub(crate) fn raw(session: Session) -> Self {
        let (near, far) = tokio::io::duplex(64 << 10);
        let (input, output) = tokio::io::split(far);
        let server = tokio::spawn(session.serve(input, output));
        Self { stream: near, server, next: 0 }
    }

    pub(crate) async fn of(session: Session) -> Self {
        let mut client = Self::raw(session);
        client.send(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).await;
        let hello = client.answer().await;
        assert_eq!((hello.kind, hello.id), (2, 3));
        client
    }

    /// With all files, where relative paths start in `base`.
    pub(crate) async fn account(base: &Path) -> Self {
        Self::of(Session::new(View::account(base).unwrap(), Shared::default())).await
    }

    pub(crate) async fn account_with(base: &Path, rules: Rules) -> Self {
        let session = Session::new(View::account(base).unwrap(), Shared::default());
        Self::of(session.with_rules(rules)).await
    }

    /// With these exports, to read and to write.
    pub(crate) async fn exports(exports: &[Export]) -> Self {
        Self::granted(exports.iter().map(|export| (export, true, true))).await
    }

    pub(crate) async fn granted(grants: impl Iterator<Item = (&Export, bool, bool)>) -> Self {
        let grants = grants.filter_map(|(export, read, write)| Grant::new(export, read, write));
        Self::of(Session::new(View::exports(grants), Shared::default())).await
    }

    pub(crate) async fn limited(base: &Path, change: impl FnOnce(&mut SftpLimits)) -> Self {
        let mut limits = SftpLimits::default();
        change(&mut limits);
        Self::of(Session::new(View::account(base).unwrap(), Shared::new(limits))).await
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        timeout(SOON, self.stream.write_all(bytes)).await.unwrap().unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let read = async {
            let length = self.stream.read_u32().await.unwrap();
            let mut bytes = vec![0; length as usize];
            self.stream.read_exact(&mut bytes).await.unwrap();
            bytes
        };
        let bytes = timeout(SOON, read).await.unwrap();
        let id = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
        Answer { kind: bytes[0], id, body: bytes[5..].to_vec() }
    }

    /// A request and its answer.
    pub(crate) async fn ask(&mut self, kind: u8, fields: Fields) -> Answer {
        self.next += 1;
        let id = self.next;
        self.send(&packet(kind, id, fields)).await;
        let answer = self.answer().await;
        assert_eq!(answer.id, id);
        answer
    }

    /// An extension's request and its answer.
    pub(crate) async fn extended(&mut self, name: &str, more: Fields) -> Answer {
        let fields = Fields([fields().text(name).0, more.0].concat());
        self.ask(200, fields).await
    }

    pub(crate) async fn open(&mut self, path: impl AsRef<[u8]>, flags: u32) -> Answer {
        self.ask(3, fields().text(path).u32(flags).u32(0)).await
    }

    /// Opens what has to open.
    #[track_caller]
    pub(crate) fn handle(answer: &Answer) -> Vec<u8> {
        assert_eq!(answer.kind, 102, "{answer:?}");
        answer.body[4..].to_vec()
    }

    pub(crate) async fn opened(&mut self, path: impl AsRef<[u8]>, flags: u32) -> Vec<u8> {
        Self::handle(&self.open(path, flags).await)
    }

    pub(crate) async fn write(&mut self, handle: &[u8], offset: u64, data: &[u8]) -> Answer {
        self.ask(6, fields().text(handle).u64(offset).text(data)).await
    }

    pub(crate) async fn read(&mut self, handle: &[u8], offset: u64, length: u32) -> Answer {
        self.ask(5, fields().text(handle).u64(offset).u32(length)).await
    }

    pub(crate) async fn close(&mut self, handle: &[u8]) -> Answer {
        self.ask(4, fields().text(handle)).await
    }

    /// The whole of a small file.
    pub(crate) async fn content(&mut self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, u32> {
        let opened = self.open(path, READ).await;
        if opened.kind != 102 {
            return Err(opened.status());
        }
        let handle = Self::handle(&opened);
        let read = self.read(&handle, 0, 32768).await;
        self.close(&handle).await;
        if read.kind == 103 { Ok(read.body[4..].to_vec()) } else { Err(read.status()) }
    }

    /// The names in a folder, without `.` and `..`.
    pub(crate) async fn list(&mut self, path: impl AsRef<[u8]>) -> Vec<Vec<u8>> {
        let handle = Self::handle(&self.ask(11, fields().text(path)).await);
        let mut names = Vec::new();
        loop {
            let answer = self.ask(12, fields().text(&handle)).await;
            if answer.kind == 101 {
                assert_eq!(answer.status(), EOF);
                break;
            }
            names.extend(answer.names().into_iter().map(|(name, _)| name));
        }
        assert_eq!(self.close(&handle).await.status(), OK);
        names.retain(|name| name != b"." && name != b"..");
        names.sort();
        names
    }

    /// Ends the client's side; how the server's ended.
    pub(crate) async fn end(mut self) -> Result<(), SessionError> {
        self.stream.shutdown().await.unwrap();
        timeout(SOON, self.server).await.unwrap().unwrap()
    }

    /// Vanishes; nothing is left running when this returns.
    pub(crate) async fn vanish(self) {
        drop(self.stream);
        let _ = timeout(SOON, self.server).await.unwrap();
    }

    /// Waits for the server to end by itself.
    pub(crate) async fn ended(self) -> Result<(), SessionError> {
        timeout(SOON, self.server).await.unwrap().unwrap()
    }

    /// Aborts the server in the middle of whatever it is doing.
    pub(crate) async fn abort(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

impl Answer {
    /// The code of a STATUS.
    #[track_caller]
    pub(crate) fn status(&self) -> u32 {
        assert_eq!(self.kind, 101, "{self:?}");
        u32::from_be_bytes(self.body[..4].try_into().unwrap())
    }

    /// The words of a STATUS.
    pub(crate) fn message(&self) -> String {
        let length = u32::from_be_bytes(self.body[4..8].try_into().unwrap()) as usize;
        String::from_utf8(self.body[8..8 + length].to_vec()).unwrap()
    }

    /// The names and long names of a NAME.
    #[track_caller]
    pub(crate) fn names(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        assert_eq!(self.kind, 104, "{self:?}");
        let mut rest = &self.body[..];
        let count = number(&mut rest);
        let names = (0..count).map(|_| {
            let (name, long) = (text(&mut rest), text(&mut rest));
            let flags = number(&mut rest);
            for (bit, size) in [(1, 8), (2, 8), (4, 4), (8, 8)] {
                if flags & bit != 0 {
                    rest = &rest[size..];
                }
            }
            (name, long)
        });
        names.collect()
    }

    /// The one path of a NAME.
    #[track_caller]
    pub(crate) fn path(&self) -> String {
        String::from_utf8(self.names().remove(0).0).unwrap()
    }

    /// Size and mode of an ATTRS.
    #[track_caller]
    pub(crate) fn size_and_mode(&self) -> (u64, u32) {
        assert_eq!(self.kind, 105, "{self:?}");
        let size = u64::from_be_bytes(self.body[4..12].try_into().unwrap());
        (size, u32::from_be_bytes(self.body[20..24].try_into().unwrap()))
    }
}

pub(crate) fn number(from: &mut &[u8]) -> u32 {
    let (head, rest) = from.split_at(4);
    *from = rest;
    u32::from_be_bytes(head.try_into().unwrap())
}

pub(crate) fn text(from: &mut &[u8]) -> Vec<u8> {
    let length = number(from) as usize;
    let (head, rest) = from.split_at(length);
    *from = rest;
    head.to_vec()
}
