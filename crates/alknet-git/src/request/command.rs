//! Requests as git has SSH run them.

use super::{InvalidRequest, Request, Service, version};
use crate::{lfs::LfsOperation, name::RepositoryName};

/// The longest command, in bytes.
const MAX_COMMAND: usize = 1024;
/// What a word may hold that is not in quotes.
const PLAIN: &str = "._-/~:@+%=,";
/// What git-lfs has run.
const TRANSFER: &str = "git-lfs-transfer";

/// A command that git has run at the other end of SSH. There is no shell: the text is a
/// request and nothing more, or it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteCommand {
    /// `git-upload-pack '/team/notes'` and its kin, also as `git upload-pack`.
    Exchange(Request),
    /// `git-lfs-transfer '/team/notes' download`
    LargeFiles {
        /// Whose large files.
        repository: RepositoryName,
        /// What for.
        operation: LfsOperation,
    },
}

impl RemoteCommand {
    /// Reads a command. `protocol` is the variable `GIT_PROTOCOL`, empty if the client sets
    /// none. `None`: it is none of git's.
    pub fn parse(command: &[u8], protocol: &str) -> Option<Result<Self, InvalidRequest>> {
        let text = str::from_utf8(command).ok()?;
        let (program, rest) = text.split_once(' ')?;
        let (program, rest) = match program {
            "git" => {
                let (command, rest) = rest.split_once(' ')?;
                (format!("git-{command}"), rest)
            }
            program => (program.to_owned(), rest),
        };
        match Service::named(&program) {
            Some(service) => Some(exchange(service, rest, protocol)),
            None if program == TRANSFER => Some(large_files(rest)),
            None => None,
        }
    }
}

fn exchange(service: Service, rest: &str, protocol: &str) -> Result<RemoteCommand, InvalidRequest> {
    let [path] = words(rest)?;
    let repository = RepositoryName::from_path(&path)?;
    let version = version(protocol.split(':'));
    Ok(RemoteCommand::Exchange(Request { service, repository, version }))
}

fn large_files(rest: &str) -> Result<RemoteCommand, InvalidRequest> {
    let [path, operation] = words(rest)?;
    let repository = RepositoryName::from_path(&path)?;
    let operation = operation.parse().map_err(|_| InvalidRequest::Malformed)?;
    Ok(RemoteCommand::LargeFiles { repository, operation })
}

/// So many words, no more and no less.
fn words<const N: usize>(text: &str) -> Result<[String; N], InvalidRequest> {
    if text.len() > MAX_COMMAND {
        return Err(InvalidRequest::Malformed);
    }
    let (mut words, mut rest) = (Vec::with_capacity(N), text.trim_matches(' '));
    while !rest.is_empty() && words.len() < N {
        let (word, after) = word(rest).ok_or(InvalidRequest::Malformed)?;
        words.push(word);
        rest = after.trim_start_matches(' ');
    }
    match (rest, words.try_into()) {
        ("", Ok(words)) => Ok(words),
        _ => Err(InvalidRequest::Malformed),
    }
}

/// The first word that a shell would make of this, where it is written as git writes it: in
/// single quotes, with `'` and `!` outside of them behind a backslash, or plain; and what
/// follows it.
fn word(text: &str) -> Option<(String, &str)> {
    let (mut word, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let after = rest.get(first.len_utf8()..)?;
        rest = match first {
            ' ' => break,
            '\'' => {
                let (quoted, after) = after.split_once('\'')?;
                word.push_str(quoted);
                after
            }
            '\\' => {
                word.push(after.chars().next().filter(|it| matches!(it, '\'' | '!'))?);
                after.get(1..)?
            }
            plain if plain.is_ascii_alphanumeric() || PLAIN.contains(plain) => {
                word.push(plain);
                after
            }
            _ => return None,
        };
    }
    Some((word, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(command: &str) -> Option<Result<RemoteCommand, InvalidRequest>> {
        RemoteCommand::parse(command.as_bytes(), "version=2")
    }

    fn request(command: &str, protocol: &str) -> Request {
        match RemoteCommand::parse(command.as_bytes(), protocol).unwrap().unwrap() {
            RemoteCommand::Exchange(request) => request,
            RemoteCommand::LargeFiles { .. } => panic!("{command}"),
        }
    }

    /// As git quotes (`sq_quote_buf`).
    fn quoted(text: &str) -> String {
        format!("'{}'", text.replace('\'', "'\\''").replace('!', "'\\!'"))
    }

    #[test]
    fn what_git_has_run_is_a_request() {
        for (command, service) in [
            ("git-upload-pack '/team/notes.git'", Service::UploadPack),
            ("git-upload-pack 'team/notes'", Service::UploadPack),
            ("git-receive-pack 'team/notes'", Service::ReceivePack),
            ("git-upload-archive 'team/notes'", Service::UploadArchive),
            ("git upload-pack '/team/notes'", Service::UploadPack),
            ("git-upload-pack team/notes", Service::UploadPack),
            ("git-upload-pack 'te''am'/'notes' ", Service::UploadPack),
        ] {
            let request = request(command, "version=2");
            assert_eq!(request.service, service, "{command}");
            assert_eq!((request.repository.as_str(), request.version), ("team/notes", 2));
        }
    }

    #[test]
    fn large_files_have_a_command_of_their_own() {
        for command in [
            "git-lfs-transfer '/team/notes.git' download",
            "git-lfs-transfer team/notes 'download'",
        ] {
            let Some(Ok(RemoteCommand::LargeFiles { repository, operation })) = read(command)
            else {
                panic!("{command}");
            };
            assert_eq!((repository.as_str(), operation), ("team/notes", LfsOperation::Download));
        }
        for rest in ["x", "x download upload", "x steal", "'x download'", "../x download", ""] {
            let command = format!("git-lfs-transfer {rest}");
            assert!(matches!(read(&command), Some(Err(_))), "{command}");
        }
    }

    #[test]
    fn another_command_is_none() {
        for command in [
            "",
            "git",
            "git-upload-pack",
            "git upload-pack",
            "git-shell 'x'",
            "git gc 'x'",
            "git -c core.sshCommand=x upload-pack 'x'",
            "/usr/bin/git-upload-pack 'x'",
            "id",
            "X=1 git-upload-pack 'x'",
            "git-upload-pack\t'x'",
        ] {
            assert!(read(command).is_none(), "{command:?}");
        }
        assert!(RemoteCommand::parse(b"git-upload-pack '\xff'", "").is_none());
    }

    #[test]
    fn nothing_but_a_path_follows() {
        for rest in [
            "",
            " ",
            "'",
            "'x",
            "x'",
            "'x' 'y'",
            "'x'; id",
            "'x' && id",
            "'x'`id`",
            "$(id)",
            "\"x\"",
            "'x'\n",
            "'x'\\",
            "'x'\\n",
            "--upload-pack=x",
            "'--help'",
            "-x",
            "'-x'",
            "'../x'",
            "'/x/../y'",
            "'~/x'",
            "'//x'",
            "''",
            "'x\0y'",
            "'x'\\''",
            "'X'",
        ] {
            let command = format!("git-upload-pack {rest}");
            assert!(!matches!(read(&command), Some(Ok(_))), "{command:?}");
        }
        let long = format!("git-upload-pack '{}'", "a".repeat(MAX_COMMAND));
        assert!(matches!(read(&long), Some(Err(InvalidRequest::Malformed))));
    }

    #[test]
    fn the_variable_says_the_version() {
        for (protocol, expected) in
            [("", 0), ("version=1", 1), ("version=2:x", 2), ("x:version=2", 2), ("version=9", 0)]
        {
            let request = request("git-upload-pack 'x'", protocol);
            assert_eq!(request.version, expected, "{protocol}");
        }
    }

    proptest! {
        #[test]
        fn whatever_git_quotes_comes_out_as_it_went_in(text in ".*") {
            let quoted = quoted(&text);
            prop_assert_eq!(word(&quoted), Some((text, "")));
        }

        #[test]
        fn any_bytes_are_taken_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let command = [&b"git-upload-pack "[..], &bytes].concat();
            let _ = RemoteCommand::parse(&command, "version=2");
        }
    }
}
