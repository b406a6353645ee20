//! The node's end of the hooks of one push.

use std::{
    collections::HashSet,
    io,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alknet_core::BoxFuture;
use alknet_host::PrivateSocket;
use tokio::{net::UnixStream, time::timeout};

use super::wire::{self, Hook, Question};
use crate::push::{Gate, Push, Refused, Say};

/// How long a hook may take to say what it wants, and to take the answer.
const PROMPT: Duration = Duration::from_secs(60);

/// Answers the hooks of one push, as `gate` decides, and notes that one has `asked`. Never ends.
pub(crate) async fn serve(
    socket: PrivateSocket,
    repository: &Path,
    gate: Arc<dyn Gate>,
    asked: &AtomicBool,
) {
    let mut before = Refused::new();
    loop {
        let hook = socket.accept().await;
        asked.store(true, Ordering::Relaxed);
        if let Err(error) = answer(hook, repository, &*gate, &mut before).await {
            tracing::debug!(%error, "a hook went away");
        }
    }
}

/// `before` is what was refused by the hook that asks first.
async fn answer(
    mut hook: UnixStream,
    repository: &Path,
    gate: &dyn Gate,
    before: &mut Refused,
) -> io::Result<()> {
    let question = timeout(PROMPT, wire::read(&mut hook)).await??;
    check(&question, repository)?;
    let asks = question.hook;
    let (say, mut said) = Say::channel();
    let mut refused = {
        let mut decided = pin!(decide(gate, question, before, &say));
        loop {
            tokio::select! {
                biased;
                Some(text) = said.recv() => timeout(PROMPT, wire::tell(&mut hook, &text)).await??,
                refused = &mut decided => break refused,
            }
        }
    };
    drop(say);
    while let Some(text) = said.recv().await {
        timeout(PROMPT, wire::tell(&mut hook, &text)).await??;
    }
    if asks == Hook::Proc {
        refused.extend(before.clone());
    } else {
        *before = refused.clone();
    }
    timeout(PROMPT, wire::answer(&mut hook, &refused)).await?
}

fn decide<'a>(
    gate: &'a dyn Gate,
    question: Question,
    before: &Refused,
    say: &'a Say,
) -> BoxFuture<'a, Refused> {
    let Question { hook, changes, quarantine, options, certificate } = question;
    let push = Push { changes, quarantine, options, certificate };
    match hook {
        Hook::Pre => gate.check(push, say),
        Hook::Proc => gate.update(push.without(before).changes, say),
        Hook::Post => {
            let done = gate.done(push.changes, say);
            Box::pin(async move {
                done.await;
                Refused::new()
            })
        }
    }
}

/// Git itself refuses two changes of one ref, but after it has asked; and it keeps what came in
/// the repository.
fn check(question: &Question, repository: &Path) -> io::Result<()> {
    let mut names = HashSet::new();
    let once = question.changes.iter().all(|change| names.insert(&change.reference));
    let within = question.quarantine.as_ref().is_none_or(|path| {
        let is_plain = path.components().all(|it| it != std::path::Component::ParentDir);
        is_plain && path.starts_with(repository.join("objects"))
    });
    if once && within { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
