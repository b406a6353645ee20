//! `alknet vault encrypt`, `decrypt` and `rotate`.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Read, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use alknet_vault::Ciphertext;
use zeroize::Zeroizing;

use crate::{
    failure::Failure,
    home::{self, Home},
    output,
    vault::{Changes, Given, Opened},
};

/// The most that is encrypted at once. It is in memory as a whole, because nothing of it may
/// be used before all of it has been authenticated.
const MAX: u64 = 64 << 20;
/// What the text form may have around it: base64 is a third longer.
const MAX_ENCRYPTED: u64 = MAX / 3 * 4 + 1024;
/// What the context of this command begins with: what it encrypts is no other part's data.
const DOMAIN: &[u8] = b"alknet vault encrypt\0";

/// Encrypt stdin to stdout, up to 64 MiB
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet vault encrypt < notes > notes.akv\n  pass | alknet vault encrypt --text --context mail"
)]
pub(super) struct Encrypt {
    /// What it is for: only the same context decrypts it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    context: String,
    /// Write text in place of bytes
    #[arg(long)]
    text: bool,
    #[command(flatten)]
    given: Given,
}

/// Decrypt stdin to stdout
///
/// Nothing is written unless all of it is authentic.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet vault decrypt < notes.akv")]
pub(super) struct Decrypt {
    /// What it was encrypted for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    context: String,
    #[command(flatten)]
    given: Given,
}

/// Take a new data key into use, and encrypt files with it anew
///
/// Files that are not named stay as they are and can be decrypted for ever. Each file is
/// replaced in one step; where that is interrupted, `--finish` goes on with the rest.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet vault rotate notes.akv\n  alknet vault rotate --finish *.akv"
)]
pub(super) struct Rotate {
    /// Files that `alknet vault encrypt` wrote
    files: Vec<PathBuf>,
    /// What the files were encrypted for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    context: String,
    /// Make no new key: encrypt what is left under an older one
    #[arg(long)]
    finish: bool,
    #[command(flatten)]
    given: Given,
}

fn context(text: &str) -> Vec<u8> {
    [DOMAIN, text.as_bytes()].concat()
}

pub(super) async fn encrypt(args: Encrypt, home: &Home) -> Result<(), Failure> {
    if !args.text && io::stdout().is_terminal() {
        return Err(Failure::usage("these bytes are not for a terminal").hint("use --text"));
    }
    let opened = super::open(home, &args.given).await?;
    let plaintext = read(stdin()?, MAX)?;
    let encrypted = opened.vault.encrypt(&context(&args.context), &plaintext)?;
    let mut out = io::stdout().lock();
    if args.text {
        writeln!(out, "{encrypted}")?;
    } else {
        out.write_all(&encrypted.to_bytes())?;
    }
    Ok(out.flush()?)
}

pub(super) async fn decrypt(args: Decrypt, home: &Home) -> Result<(), Failure> {
    let opened = super::open(home, &args.given).await?;
    let (encrypted, _) = parse(&read(stdin()?, MAX_ENCRYPTED)?)?;
    let plaintext = opened.vault.decrypt(&context(&args.context), &encrypted)?;
    let mut out = io::stdout().lock();
    out.write_all(&plaintext)?;
    Ok(out.flush()?)
}

fn read(mut input: impl Read, max: u64) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut content = Zeroizing::new(Vec::with_capacity(64 << 10));
    loop {
        let room = content.capacity() - content.len();
        let ended = input.by_ref().take(room as u64).read_to_end(&mut content)? < room;
        if content.len() as u64 > max {
            return Err(Failure::new("this is more than is encrypted at once, which is 64 MiB"));
        }
        if ended {
            return Ok(content);
        }
        // A buffer that grows by itself leaves what it held behind.
        let mut larger = Zeroizing::new(Vec::with_capacity(2 * content.capacity()));
        larger.extend_from_slice(&content);
        content = larger;
    }
}

/// Stdin without the buffer of [`io::Stdin`], where a part would stay.
fn stdin() -> io::Result<File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// The form that a ciphertext was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bytes,
    Text,
}

fn parse(content: &[u8]) -> Result<(Ciphertext, Form), Failure> {
    // Damaged text is no bytes of some other format.
    if content.trim_ascii_start().starts_with(b"akv:") {
        return Ok((String::from_utf8_lossy(content).parse()?, Form::Text));
    }
    Ok((Ciphertext::parse(content)?, Form::Bytes))
}

pub(super) async fn rotate(args: Rotate, home: &Home) -> Result<(), Failure> {
    let mut opened = super::open(home, &args.given).await?;
    let context = context(&args.context);
    let mut seen = 0;
    // All of them before anything changes: a wrong context shows here.
    for path in &args.files {
        let read = of_file(path).and_then(|(encrypted, _)| {
            opened.vault.decrypt(&context, &encrypted)?;
            Ok(encrypted.key_version())
        });
        seen = seen.max(read.map_err(|failure| failure.context(path.display().to_string()))?);
    }
    if !args.finish {
        let changes = Changes::begin(home, &opened)?;
        opened.vault.rotate(seen)?;
        // Before the first file needs it.
        changes.save(&mut opened)?;
        let version = opened.vault.data_version().to_string();
        super::record(home, "vault-rotated", Some(version))?;
    }
    let mut done = 0;
    for path in &args.files {
        let again = reencrypt(path, &context, &opened);
        done += usize::from(again.map_err(|f| f.context(path.display().to_string()))?);
    }
    let version = opened.vault.data_version();
    Ok(output::note(format!("data key {version}; {done} files were encrypted anew"))?)
}

fn of_file(path: &Path) -> Result<(Ciphertext, Form), Failure> {
    parse(&read(File::open(path)?, MAX_ENCRYPTED)?)
}

/// Whether the file was under an older key.
fn reencrypt(path: &Path, context: &[u8], opened: &Opened) -> Result<bool, Failure> {
    // The file itself, where the name is a link to it.
    let path = fs::canonicalize(path)?;
    let (encrypted, form) = of_file(&path)?;
    let Some(encrypted) = opened.vault.reencrypt(context, &encrypted)? else { return Ok(false) };
    let content = match form {
        Form::Bytes => encrypted.to_bytes(),
        Form::Text => format!("{encrypted}\n").into_bytes(),
    };
    home::replace(&path, &content)?;
    Ok(true)
}
