//! `alknet vault init` and `import`.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _},
    os::fd::AsFd as _,
    path::PathBuf,
};

use alknet_vault::{Mnemonic, Purpose, Vault, WordCount};
use zeroize::Zeroizing;

use super::seal::{How, Seal, described};
use crate::{
    commands::prompt,
    failure::Failure,
    home::Home,
    output,
    vault::{self, Changes, Given, Opened, VaultError},
};

/// The longest recovery phrase that is read: 24 words of at most 8 letters, and much space.
const MAX_PHRASE: u64 = 4096;

/// Make a vault, and show its recovery phrase once
///
/// The phrase appears on the terminal and nowhere else; once you have confirmed that it is
/// written down nothing can show it again. If a node has made its own vault already, this
/// shows the phrase of that one.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet vault init\n  alknet vault init --words 24 --seal key-file"
)]
pub(super) struct Init {
    /// How many words the phrase has: 12, 15, 18, 21 or 24 [default: 12]
    #[arg(long, value_name = "N", value_parser = word_count)]
    words: Option<WordCount>,
    #[command(flatten)]
    new: New,
}

/// Bring back the keys of a recovery phrase
///
/// The phrase is typed at the terminal, without being shown, or read from stdin. On a new
/// machine the same phrase brings back the same node id and the same SSH host key.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet vault import\n  alknet vault import --seal key-file < phrase"
)]
pub(super) struct Import {
    #[command(flatten)]
    new: New,
}

/// How a new vault is sealed.
#[derive(Debug, clap::Args)]
struct New {
    /// passphrase, key-file, or credential[=NAME] [default: passphrase]
    #[arg(long, value_name = "HOW")]
    seal: Option<How>,
    /// Read the passphrase that seals the vault from the first line of a file; /dev/fd/N is
    /// a descriptor
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Read the 32 bytes of the credential that seals the vault from a file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Read a passphrase that belongs to the phrase (BIP-0039) from the first line of a file;
    /// without it the phrase is another vault's
    #[arg(long, value_name = "FILE")]
    phrase_passphrase_file: Option<PathBuf>,
}

impl New {
    /// What belongs to the phrase, and how to seal.
    fn parts(self) -> Result<(Zeroizing<String>, Seal), Failure> {
        let read = |path: &PathBuf| vault::read_passphrase(path);
        let beside = self.phrase_passphrase_file.as_ref().map(read).transpose()?;
        let seal = Seal {
            how: self.seal.unwrap_or(How::Passphrase),
            passphrase_file: self.passphrase_file,
            key_file: self.key_file,
        };
        Ok((beside.unwrap_or_default(), seal.check()?))
    }

    fn is_given(&self) -> bool {
        self.seal.is_some() || self.phrase_passphrase_file.is_some()
    }

    /// What opens the vault that is there.
    fn into_given(self) -> Given {
        Given { passphrase_file: self.passphrase_file, key_file: self.key_file }
    }
}

fn word_count(text: &str) -> Result<WordCount, String> {
    let count: usize = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    WordCount::try_from(count).map_err(|_| "12, 15, 18, 21 or 24".into())
}

pub(super) async fn init(args: Init, home: &Home) -> Result<(), Failure> {
    // Before anything is made: the phrase has to be shown to somebody.
    let terminal = prompt::terminal()?.ok_or_else(|| {
        Failure::new("the recovery phrase is shown on a terminal, and there is none")
            .hint("`alknet serve` makes a vault unattended; show its phrase later")
    })?;
    let mut opened = match vault::load(home)? {
        Some(_) if args.words.is_some() || args.new.is_given() => {
            return Err(VaultError::Exists { path: home.path("vault") }.into());
        }
        Some(sealed) => vault::open(home, sealed, &args.new.into_given()).await?,
        None => make(args, home).await?,
    };
    let Some(phrase) = opened.vault.phrase() else {
        return Err(Failure::new("the recovery phrase has been shown, and is kept nowhere")
            .hint("to get a phrase, make a new vault; the node gets a new identity with it"));
    };
    let terminal_too = terminal.try_clone()?;
    let confirmed = tokio::task::spawn_blocking(move || show(terminal_too, &phrase));
    confirmed.await.map_err(io::Error::other)??;
    opened.vault.forget_phrase();
    Changes::begin(home, &opened)?.save(&mut opened)?;
    report(&opened)
}

async fn make(args: Init, home: &Home) -> Result<Opened, Failure> {
    let (beside, seal) = args.new.parts()?;
    let vault = Vault::create(args.words.unwrap_or_default(), &beside)?;
    write(home, &vault, seal).await
}

/// Seals and writes a new vault, and opens it as it was written.
async fn write(home: &Home, vault: &Vault, seal: Seal) -> Result<Opened, Failure> {
    let seal = seal.prepare().await?;
    let key = seal.as_ref().map(|(_, key)| Zeroizing::new(*key.expose()));
    let sealed = vault::create(home, vault, seal)?;
    super::record(home, "vault-made", Some(described(sealed.method())))?;
    match key.and_then(|key| alknet_vault::SealingKey::from_bytes(&*key)) {
        Some(key) => {
            let vault = sealed.open(&key).map_err(|_| alknet_vault::CryptoError)?;
            Ok(Opened { vault, key, sealed })
        }
        None => Ok(vault::open(home, sealed, &Given::default()).await?),
    }
}

/// Shows the phrase, and waits until it is written down. Whoever interrupts this has not
/// confirmed, and can see it again.
fn show(mut terminal: File, phrase: &Mnemonic) -> io::Result<()> {
    let intro = "The recovery phrase. Whoever has it has every key of this machine, and without \
                 it a lost\nvault cannot be brought back. Write it down on paper; it is shown \
                 this once.\n\n";
    terminal.write_all(intro.as_bytes())?;
    terminal.write_all(vault::columns(phrase).as_bytes())?;
    terminal.write_all(b"\nPress Enter when it is written down, then clear the screen: ")?;
    let mut line = String::new();
    // The end of input is no confirmation.
    if BufReader::new(terminal.take(MAX_PHRASE)).read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "not confirmed"));
    }
    Ok(())
}

pub(super) async fn import(args: Import, home: &Home) -> Result<(), Failure> {
    // Before somebody types 24 words in vain.
    if vault::load(home)?.is_some() {
        return Err(VaultError::Exists { path: home.path("vault") }.into());
    }
    let (beside, seal) = args.new.parts()?;
    let phrase = Mnemonic::parse(&read_phrase().await?)?;
    let vault = Vault::from_mnemonic(&phrase, &beside);
    let opened = write(home, &vault, seal).await?;
    report(&opened)
}

async fn read_phrase() -> Result<Zeroizing<String>, Failure> {
    if io::stdin().is_terminal() {
        let typed = prompt::at_terminal("recovery phrase, all words in one line:").await?;
        return typed.ok_or_else(|| VaultError::Locked.into());
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_PHRASE)?));
    // Past the buffer of `Stdin`, where it would stay.
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    stdin.take(MAX_PHRASE).read_to_string(&mut text)?;
    Ok(text)
}

fn report(opened: &Opened) -> Result<(), Failure> {
    let id =
        alknet_core::NodeId::from_bytes(opened.vault.key(Purpose::Identity)?.ed25519_public()?);
    output::note(format!("the vault is sealed with {}", described(opened.sealed.method())))?;
    Ok(output::line(id)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn words_are_counted() {
        assert_eq!(word_count("24"), Ok(WordCount::TwentyFour));
        assert!(word_count("13").is_err() && word_count("many").is_err());
    }

    #[test]
    fn ways_of_sealing_are_written_in_words() {
        assert_eq!("key-file".parse(), Ok(How::KeyFile));
        let named = How::Credential("other".parse().unwrap());
        assert_eq!("credential=other".parse(), Ok(named));
        assert_ne!("credential".parse::<How>(), "credential=other".parse());
        for bad in ["", "keyfile", "credential=", "credential=../x"] {
            assert!(bad.parse::<How>().is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_go_with_their_way() {
        let seal = |how: &str, passphrase: bool, key: bool| {
            let how = how.parse().unwrap();
            let file = |given: bool| given.then(|| Path::new("f").to_path_buf());
            Seal { how, passphrase_file: file(passphrase), key_file: file(key) }.check().is_ok()
        };
        assert!(seal("passphrase", true, false) && !seal("passphrase", false, true));
        assert!(seal("credential", false, true) && !seal("credential", true, false));
        assert!(seal("key-file", false, false) && !seal("key-file", true, false));
    }
}
