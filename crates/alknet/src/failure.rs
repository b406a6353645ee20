//! How a command fails: a chain of causes, what to do about it, an exit code.

use std::{error::Error, fmt::Write as _, io, io::Write as _, process::ExitCode};

use alknet_call::{CallError, ErrorCode};

use crate::{
    config::ConfigError,
    connect::ReachError,
    control::ControlError,
    credentials::CredentialsError,
    home::HomeError,
    keys::KeyError,
    known_nodes::KnownNodesError,
    store::{PeerError, StoreError, TokenError},
    vault::VaultError,
};

/// Ends a command. Any error turns into one with `?`.
#[derive(Debug)]
pub(crate) struct Failure {
    silent: bool,
    usage: bool,
    context: Vec<String>,
    source: Box<dyn Error + Send + Sync>,
    hints: Vec<String>,
}

impl Failure {
    /// The command could not be done: exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            silent: false,
            usage: false,
            context: Vec::new(),
            source: message.into().into(),
            hints: Vec::new(),
        }
    }

    /// The command was used wrongly: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { usage: true, ..Self::new(message) }
    }

    /// What the command has printed says it all: exit code 1.
    pub(crate) fn silent() -> Self {
        Self { silent: true, ..Self::new("") }
    }

    /// What the user can do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What was being done when it happened.
    #[must_use]
    pub(crate) fn context(mut self, context: impl Into<String>) -> Self {
        self.context.insert(0, context.into());
        self
    }

    /// Prints the failure to stderr; gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.silent && !self.is_broken_pipe() {
            // There is nowhere left to say that stderr is gone.
            let _ = io::stderr().lock().write_all(self.text().as_bytes());
        }
        ExitCode::from(if self.usage { 2 } else { 1 })
    }

    /// What the user can do about it.
    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// What it is made of, if that is an error of this type.
    pub(crate) fn cause<E: Error + 'static>(&self) -> Option<&E> {
        self.source.downcast_ref()
    }

    /// What went wrong, with its causes.
    pub(crate) fn message(&self) -> String {
        let mut text = String::new();
        for context in &self.context {
            let _ = write!(text, "{context}: ");
        }
        let _ = write!(text, "{}", self.source);
        let mut cause = self.source.source();
        while let Some(error) = cause {
            // Some libraries print their cause and give it as the source as well.
            let message = error.to_string();
            if !text.ends_with(&message) {
                let _ = write!(text, ": {message}");
            }
            cause = error.source();
        }
        text
    }

    fn text(&self) -> String {
        // Some of it may be a peer's text: nothing in it moves the cursor.
        let message = self.message();
        let lines: Vec<String> = message.split('\n').map(crate::commands::plain).collect();
        let mut text = format!("error: {}\n", lines.join("\n       "));
        for hint in &self.hints {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }

    /// Whoever read our output has gone (`alknet peer list | head -1`): not worth a word.
    fn is_broken_pipe(&self) -> bool {
        self.source
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let hints = known_hint(&error).into_iter().collect();
        Self { silent: false, usage: false, context: Vec::new(), source: Box::new(error), hints }
    }
}

/// The hints that belong to an error wherever it turns up.
fn known_hint(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<HomeError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<KeyError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<VaultError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<ControlError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<KnownNodesError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return error.hint();
    }
    if let Some(PeerError::Store(error)) = error.downcast_ref() {
        return error.hint();
    }
    if let Some(TokenError::Store(error)) = error.downcast_ref() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<CredentialsError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<CallError>() {
        return call_hint(error).map(Into::into);
    }
    reach_hint(error.downcast_ref()?)
}

fn call_hint(error: &CallError) -> Option<&'static str> {
    match error.code {
        ErrorCode::NotFound => Some(
            "what this machine may not use does not exist for it: alknet call NODE --list shows \
             what does, and on the node alknet peer explain NAME call:NAMESPACE/NAME says why",
        ),
        ErrorCode::InvalidInput => Some("alknet call NODE OPERATION --schema shows what it takes"),
        ErrorCode::Timeout => Some("--timeout gives it longer, where the node does too"),
        ErrorCode::Internal => Some("the node's log has more"),
        _ => None,
    }
}

fn reach_hint(error: &ReachError) -> Option<String> {
    match error {
        ReachError::KnownNodes(error) => error.hint(),
        ReachError::Keys(error) => error.hint(),
        ReachError::Credentials(error) => error.hint(),
        ReachError::Connect { source, .. } => source.hint().map(Into::into),
        ReachError::NotPinned { .. } => {
            Some("`alknet id` on the node prints what belongs after --pin".into())
        }
        ReachError::Pin(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_and_the_hints_are_printed() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let failure = Failure::from(Outer(io::Error::other("inner")))
            .context("while testing")
            .hint("try again");
        assert_eq!(failure.text(), "error: while testing: outer: inner\nhint: try again\n");
    }
}
