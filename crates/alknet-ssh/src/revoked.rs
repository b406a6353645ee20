//! Keys and certificates that are taken out of use by a list, whoever they belong to.

use std::{
    env, fmt, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use russh::keys::{
    Certificate, PublicKey,
    ssh_key::{self, public::KeyData},
};
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

/// What a key revocation list of OpenSSH begins with (its `PROTOCOL.krl`).
const KRL: &[u8] = b"SSHKRL\n\0";
/// The most that is read of a list in text, in bytes.
const MAX_TEXT: u64 = 16 * 1024 * 1024;
/// How long one question may take, waiting for its turn included.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many questions are worked on at a time.
const AT_ONCE: usize = 4;
/// How often the file is looked at while sessions last.
const POLL: Duration = Duration::from_millis(400);
/// How long a session waits before it asks again where there was no answer.
const RETRY: Duration = Duration::from_secs(5);

/// The file of keys and certificates that nobody may log in with, as `RevokedKeys` of
/// OpenSSH's `sshd`: a key revocation list made by `ssh-keygen -k`, or text with one public
/// key a line. It revokes user keys, certificates and authorities.
///
/// A change of the file holds at once, and ends live sessions too. As long as the file
/// cannot be read, nobody logs in; live sessions go on.
///
/// Key revocation lists are read by OpenSSH's own `ssh-keygen`, which has to be installed
/// where they are used.
///
/// Cheap to clone; clones share the file.
#[derive(Clone)]
pub struct RevokedKeys(Arc<Inner>);

struct Inner {
    file: watch::Sender<Option<PathBuf>>,
    turns: Semaphore,
}

/// Whether a key is revoked could not be found out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevokedKeysError {
    /// The file could not be read.
    #[error("the list of revoked keys {0} could not be read")]
    Read(PathBuf, #[source] io::Error),
    /// A line of a list in text is not a public key. The line counts from 1.
    #[error("line {1} of the list of revoked keys {0} is not a public key")]
    Line(PathBuf, usize),
    /// A list in text is too long.
    #[error("the list of revoked keys {0} is longer than {MAX_TEXT} bytes")]
    Long(PathBuf),
    /// `ssh-keygen`, which reads key revocation lists, could not be run.
    #[error("ssh-keygen, which reads key revocation lists, could not be run")]
    Tool(#[source] io::Error),
    /// `ssh-keygen` cannot read the list, or not the key.
    #[error("ssh-keygen cannot check against {0}: {1}")]
    Answer(PathBuf, String),
    /// No answer within the deadline.
    #[error("no answer about revoked keys within {} seconds", DEADLINE.as_secs())]
    Late,
    /// The key has no text form.
    #[error("a key without a text form")]
    Key(#[source] ssh_key::Error),
}

/// A key or a certificate in the forms that the lists are asked with.
#[derive(Debug)]
pub(crate) struct Subject {
    /// `type base64`
    line: String,
    key: KeyData,
    authority: Option<KeyData>,
}

impl Subject {
    pub(crate) fn key(key: &KeyData) -> Result<Self, RevokedKeysError> {
        let line = PublicKey::from(key.clone()).to_openssh().map_err(RevokedKeysError::Key)?;
        Ok(Self { line, key: key.clone(), authority: None })
    }

    pub(crate) fn certificate(certificate: &Certificate) -> Result<Self, RevokedKeysError> {
        let line = certificate.to_openssh().map_err(RevokedKeysError::Key)?;
        let authority = Some(certificate.signature_key().clone());
        Ok(Self { line, key: certificate.public_key().clone(), authority })
    }
}

/// Which state of which file an answer is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    file: Option<PathBuf>,
    /// Device, inode, length and both times: a file that was replaced or written to differs.
    state: Option<(u64, u64, u64, [i64; 4])>,
}

impl RevokedKeys {
    /// With the keys that `file` lists; none without a file.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self(Arc::new(Inner { file: watch::Sender::new(file), turns: Semaphore::new(AT_ONCE) }))
    }

    /// Takes another file, or none, from now on.
    pub fn set_file(&self, file: Option<PathBuf>) {
        self.0.file.send_replace(file);
    }

    /// Tries whether the list can be read, as the next login will. Cancel safe.
    pub async fn verify(&self) -> Result<(), RevokedKeysError> {
        // Somebody's key, it does not matter whose.
        let key = KeyData::from(ssh_key::public::Ed25519PublicKey([0; 32]));
        self.revoked(&Subject::key(&key)?).await.map(drop)
    }

    /// Whether the list has a key or certificate, and which version of the list says so.
    /// Cancel safe.
    pub(crate) async fn revoked(
        &self,
        subject: &Subject,
    ) -> Result<(bool, Version), RevokedKeysError> {
        let file = self.0.file.borrow().clone();
        let version = Version::of(file.clone()).await;
        let Some(file) = file else { return Ok((false, version)) };
        let asked = async {
            let _turn = self.0.turns.acquire().await;
            ask(&file, subject).await
        };
        let revoked = timeout(DEADLINE, asked).await.map_err(|_| RevokedKeysError::Late)??;
        Ok((revoked, version))
    }

    /// Waits until the list has a key or certificate that it had not in `version`. Cancel
    /// safe.
    pub(crate) async fn until_revoked(&self, subject: &Subject, mut version: Version) {
        let mut file = self.0.file.subscribe();
        loop {
            let path = file.borrow_and_update().clone();
            let has_file = path.is_some();
            let now = Version::of(path).await;
            let mut pause = POLL;
            if now != version {
                match self.revoked(subject).await {
                    Ok((true, _)) => return,
                    Ok((false, seen)) => version = seen,
                    Err(error) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::error!(%error, cause, "a live session could not be verified again");
                        pause = RETRY;
                    }
                }
            }
            tokio::select! {
                // The sender lives as long as `self`.
                _ = file.changed() => {}
                () = sleep(pause), if has_file => {}
            }
        }
    }
}

impl Version {
    async fn of(file: Option<PathBuf>) -> Self {
        let Some(path) = &file else { return Self { file, state: None } };
        let state = fs::metadata(path).await.ok().map(|it| {
            let times = [it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()];
            (it.dev(), it.ino(), it.size(), times)
        });
        Self { file, state }
    }
}

impl Default for RevokedKeys {
    fn default() -> Self {
        Self::new(None)
    }
}

impl fmt::Debug for RevokedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RevokedKeys").field(&*self.0.file.borrow()).finish()
    }
}

async fn ask(path: &Path, subject: &Subject) -> Result<bool, RevokedKeysError> {
    let unreadable = |error| RevokedKeysError::Read(path.into(), error);
    let file = File::open(path).await.map_err(unreadable)?;
    let mut content = Vec::new();
    let mut file = file.take(KRL.len() as u64);
    file.read_to_end(&mut content).await.map_err(unreadable)?;
    if content == KRL {
        return ask_ssh_keygen(path, subject).await;
    }
    file.set_limit(MAX_TEXT);
    file.read_to_end(&mut content).await.map_err(unreadable)?;
    if content.len() as u64 > MAX_TEXT {
        return Err(RevokedKeysError::Long(path.into()));
    }
    lists(path, &content, subject)
}

/// Whether a list in text has the key or the authority of a certificate.
fn lists(path: &Path, content: &[u8], subject: &Subject) -> Result<bool, RevokedKeysError> {
    let mut found = false;
    for (number, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let text = str::from_utf8(line).ok();
        let key = text
            .and_then(|text| PublicKey::from_openssh(text).ok())
            .ok_or_else(|| RevokedKeysError::Line(path.into(), number + 1))?;
        // A certificate stands for its key, as with `sshd`.
        let listed = match key.key_data() {
            KeyData::Certificate(certificate) => certificate.public_key(),
            other => other,
        };
        found |= *listed == subject.key || Some(listed) == subject.authority.as_ref();
    }
    Ok(found)
}

async fn ask_ssh_keygen(path: &Path, subject: &Subject) -> Result<bool, RevokedKeysError> {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-Q", "-f"])
        .arg(path)
        .arg("/dev/stdin")
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(RevokedKeysError::Tool)?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it ends before it has read all, its status tells why.
        let _ = stdin.write_all(format!("{}\n", subject.line).as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(RevokedKeysError::Tool)?;
    match output.status.code() {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim().chars().take(200).collect();
            Err(RevokedKeysError::Answer(path.into(), said))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn subject(line: &str) -> Subject {
        Subject::key(PublicKey::from_openssh(line).unwrap().key_data()).unwrap()
    }

    #[tokio::test]
    async fn a_list_in_text_has_a_key_a_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let list = RevokedKeys::new(Some(file.path().into()));
        let asked = async |content: &str| {
            std::fs::write(file.path(), content).unwrap();
            list.revoked(&subject(ONE)).await.map(|(revoked, _)| revoked)
        };
        assert!(!asked("").await.unwrap());
        assert!(!asked(&format!("# revoked\n\n{OTHER} bob\n")).await.unwrap());
        assert!(asked(&format!("{OTHER}\r\n  {ONE} alice")).await.unwrap());
        let typo = asked(&format!("{ONE}\nssh-ed25519 AAAA\n")).await;
        assert!(matches!(typo, Err(RevokedKeysError::Line(_, 2))), "{typo:?}");
        assert!(matches!(list.verify().await, Err(RevokedKeysError::Line(_, 2))));
    }

    #[tokio::test]
    async fn a_list_that_cannot_be_read_has_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("krl");
        let list = RevokedKeys::new(Some(path.clone()));
        assert!(matches!(list.verify().await, Err(RevokedKeysError::Read(..))));
        std::fs::write(&path, [KRL, b"not what follows"].concat()).unwrap();
        let answer = list.verify().await;
        assert!(matches!(answer, Err(RevokedKeysError::Answer(..))), "{answer:?}");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(MAX_TEXT + 1).unwrap();
        assert!(matches!(list.verify().await, Err(RevokedKeysError::Long(_))));
        list.set_file(None);
        assert!(list.verify().await.is_ok());
    }
}
