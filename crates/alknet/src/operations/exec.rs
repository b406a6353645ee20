//! `exec/run`: a command, as the account of the caller.

mod group;
mod output;

use std::{
    collections::BTreeMap, convert::Infallible, future::pending, path::PathBuf, sync::Arc,
    time::Duration,
};

use alknet_call::{Access, CALLED, CallError, Context, Items, Operation};
use alknet_core::{Action, AuditEvent};
use alknet_host::{Account, Accounts};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    process::Command,
    sync::Semaphore,
    time::timeout,
};

use self::{
    group::{Group, Pipes},
    output::{Event, Stream, forward},
};
use super::{Made, Parts, on_items};

/// How many commands run at a time.
const COMMANDS: usize = 256;
/// How many variables may be set.
const VARIABLES: usize = 64;

/// The program could not be started.
const NOT_STARTED: &str = "NOT_STARTED";

/// The operations that run commands.
pub(super) fn operations(parts: &Arc<Parts>) -> Made {
    let exec = Exec { accounts: parts.accounts.clone(), places: Semaphore::new(COMMANDS) };
    Ok(vec![
        Operation::subscription("exec/run", on_items(&Arc::new(exec), run))?
            .describe(
                "Runs a command as the caller's account of the machine, the first of theirs \
                 where the node serves several, and gives what it writes, then how it ended. The \
                 end of the call is the end of the command and of what it has started. Needs the scope exec:run as well.",
            )
            .access(Access::Also(Action::from("exec:run")))
            .error(NOT_STARTED, "The program could not be started."),
    ])
}

/// What commands run with.
#[derive(Debug)]
struct Exec {
    accounts: Accounts,
    places: Semaphore,
}

/// A command to run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Run {
    /// A line for the login shell, or a program and its arguments.
    command: Program,
    /// The folder to run it in; the account's home folder, if it is left out.
    cwd: Option<PathBuf>,
    /// Variables to set: LANG, those that begin with LC_, and COLORTERM.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// What the command reads; nothing, if it is left out.
    #[schemars(length(max = 1_048_576))]
    stdin: Option<String>,
    /// Whether stdin is base64 (RFC 4648, section 4).
    #[serde(default)]
    base64: bool,
    /// How long it may run, in milliseconds. The call ends with TIMEOUT then.
    timeout_ms: Option<u64>,
}

/// What to start.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Program {
    /// A line for the login shell.
    Line(String),
    /// A program and its arguments.
    Arguments(#[schemars(length(min = 1))] Vec<String>),
}

async fn run(
    exec: Arc<Exec>,
    context: Context,
    run: Run,
    items: Items<Event>,
) -> Result<(), CallError> {
    let full = |_| CallError::unavailable(format!("{COMMANDS} commands run already"));
    let _place = exec.places.try_acquire().map_err(full)?;
    let stdin = input(&run)?;
    let account = account(&exec, &context).await?;
    let command = command(&account, &run)?;
    let subject = Some("exec/run".to_owned());
    let called = AuditEvent { subject, ..AuditEvent::about(CALLED, context.auth()) };
    context.registry().audit().record(called);
    let served = serve(command, &stdin, &items);
    match run.timeout_ms {
        None => served.await,
        Some(limit) => match timeout(Duration::from_millis(limit), served).await {
            Ok(served) => served,
            Err(_) => Err(CallError::timeout()),
        },
    }
}

/// Who the command runs as. Why there is nobody is for the log alone.
async fn account(exec: &Exec, context: &Context) -> Result<Account, CallError> {
    let none = || CallError::forbidden("the node has no account of the machine for you");
    let identity = context.auth().identity.as_deref().ok_or_else(none)?;
    exec.accounts.of(identity, None).await.map_err(|error| {
        tracing::warn!(%error, identity = identity.id, "a command was refused");
        none()
    })
}

fn input(run: &Run) -> Result<Vec<u8>, CallError> {
    let text = run.stdin.as_deref().unwrap_or_default();
    if run.base64 {
        STANDARD.decode(text).map_err(|_| CallError::invalid_input("stdin is not base64"))
    } else {
        Ok(text.into())
    }
}

fn command(account: &Account, run: &Run) -> Result<Command, CallError> {
    let mut command = match &run.command {
        Program::Line(line) => account.shell_command(line),
        Program::Arguments(words) => match words.as_slice() {
            [program, arguments @ ..] => {
                let mut command = account.command(program);
                command.args(arguments);
                command
            }
            [] => return Err(CallError::invalid_input("the command has no program")),
        },
    };
    if run.env.len() > VARIABLES {
        return Err(CallError::invalid_input(format!("{VARIABLES} variables at most")));
    }
    if let Some((name, _)) = run.env.iter().find(|(name, value)| !Account::may_be_set(name, value))
    {
        return Err(CallError::invalid_input(format!("the variable {name:?} may not be set so")));
    }
    command.envs(&run.env);
    if let Some(folder) = &run.cwd {
        // Another account looks for itself, once it is nobody else.
        if account.is_own() && !account.home.join(folder).is_dir() {
            return Err(CallError::invalid_input("cwd is no folder"));
        }
        command.current_dir(account.home.join(folder));
    }
    Ok(command)
}

/// Runs a command to its end. When the future is dropped, or fails, the command and its
/// process group are killed.
async fn serve(command: Command, stdin: &[u8], items: &Items<Event>) -> Result<(), CallError> {
    let failed = |error| CallError::declared(NOT_STARTED, format!("not started: {error}"));
    let (mut group, pipes) = Group::start(command).map_err(failed)?;
    let Pipes { stdin: sink, stdout, stderr } = pipes;
    let exited = async { group.exited().await.map_err(CallError::internal) };
    let ended = async {
        tokio::try_join!(
            forward(Stream::Stdout, stdout, items),
            forward(Stream::Stderr, stderr, items),
            exited
        )
    };
    tokio::select! {
        ended = ended => drop(ended?),
        never = feed(stdin, sink) => match never {},
    }
    let status = group.finish().await.map_err(CallError::internal)?;
    items.send(Event::of_end(status)).await
}

/// Gives a command its input, and then waits for ever. Input that it does not want is
/// dropped.
async fn feed(input: &[u8], sink: Option<impl AsyncWrite + Unpin>) -> Infallible {
    if let Some(mut sink) = sink {
        let _ = sink.write_all(input).await;
        let _ = sink.shutdown().await;
    }
    pending().await
}
