//! The node's end of the hooks of one push.

use std::{
    collections::HashSet,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alknet_core::BoxFuture;
use alknet_host::PrivateSocket;
use bytes::Bytes;
use tokio::{net::UnixStream, sync::mpsc, time::timeout};

use super::wire::{self, Hook, Question};
use crate::push::{GONE, Gate, Push, RefChange, Refused, Say};

/// How long a hook may take to say what it wants, and to take the answer.
const PROMPT: Duration = Duration::from_secs(60);
/// Why no ref is changed where one is to become two things.
const TWICE: &str = "a ref is named twice";

/// How far the hooks of a push have come.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// One has asked.
    pub(crate) asked: AtomicBool,
    /// Some ref may change, and git is about to hear of it, or has changed it since.
    pub(crate) decided: AtomicBool,
}

/// Answers the hooks of one push, as `gate` decides, and notes how far they are. Never ends.
pub(crate) async fn serve(
    socket: PrivateSocket,
    repository: &Path,
    gate: Arc<dyn Gate>,
    course: &Course,
) {
    let mut before = Refused::new();
    loop {
        let hook = socket.accept().await;
        if let Err(error) = answer(hook, repository, &*gate, &mut before, course).await {
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
    course: &Course,
) -> io::Result<()> {
    let question = timeout(PROMPT, wire::read(&mut hook)).await??;
    course.asked.store(true, Ordering::Relaxed);
    if let Some(why) = fault(&question, repository) {
        gate.unasked(question.changes.clone(), Some(why.to_owned()));
        let refused = |change: RefChange| (change.reference, why.to_owned());
        *before = question.changes.into_iter().map(refused).collect();
        return timeout(PROMPT, wire::answer(&mut hook, before)).await?;
    }
    let (asks, wanted) = (question.hook, question.changes.len());
    let (say, said) = Say::channel();
    let decided = async {
        let refused = decide(gate, question, before, &say).await;
        drop(say);
        Ok(refused)
    };
    // What follows a change of refs is done, whether or not anybody hears of it.
    let told = tell(&mut hook, said, asks == Hook::Post);
    let (mut refused, told) = tokio::try_join!(decided, told)?;
    if !told {
        return Ok(());
    }
    if asks == Hook::Proc {
        refused.extend(before.clone());
        course.decided.fetch_or(refused.len() < wanted, Ordering::Relaxed);
    } else {
        *before = refused.clone();
    }
    timeout(PROMPT, wire::answer(&mut hook, &refused)).await?
}

/// Tells a hook what is said, to its end; whether it has heard all of it. One that does not is
/// an error, unless it is dispensable.
async fn tell(
    hook: &mut UnixStream,
    mut said: mpsc::Receiver<Bytes>,
    dispensable: bool,
) -> io::Result<bool> {
    let mut hears = true;
    while let Some(text) = said.recv().await {
        if !hears {
            continue;
        }
        let told = timeout(PROMPT, wire::tell(hook, &text)).await;
        match told.map_err(io::Error::from).flatten() {
            Err(error) if !dispensable => return Err(error),
            told => hears = told.is_ok(),
        }
    }
    Ok(hears)
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

/// What is wrong with a question. Git itself refuses two changes of one ref, but after it has
/// asked; and it keeps what came in the repository, wherever that is by now.
fn fault(question: &Question, repository: &Path) -> Option<&'static str> {
    let mut names = HashSet::new();
    if !question.changes.iter().all(|change| names.insert(&change.reference)) {
        return Some(TWICE);
    }
    let within = question.quarantine.as_ref().is_none_or(|path| {
        let is_plain = path.components().all(|it| it != std::path::Component::ParentDir);
        is_plain && path.starts_with(repository.join("objects"))
    });
    (!within).then_some(GONE)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::push::testing::Agrees;

    #[test]
    fn what_git_says_is_about_each_ref_once_and_about_its_repository() {
        let change = |name: &str| {
            let id = "1".repeat(40);
            RefChange::from_line(&format!("{id} {id} {name}")).unwrap()
        };
        let ask = |names: &[&str], quarantine: &str| {
            let question = Question {
                hook: Hook::Pre,
                changes: names.iter().map(|name| change(name)).collect(),
                quarantine: Some(quarantine.into()),
                options: Vec::new(),
                certificate: None,
            };
            fault(&question, Path::new("/r.git"))
        };
        assert_eq!(ask(&["refs/heads/a", "refs/heads/b"], "/r.git/objects/incoming-x"), None);
        assert_eq!(ask(&["refs/heads/a", "refs/heads/a"], "/r.git/objects/x"), Some(TWICE));
        for outside in ["/", "/r.git", "/q.git/objects/x", "/r.git/objects/../x", "objects/x"] {
            assert_eq!(ask(&[], outside), Some(GONE), "{outside}");
        }
    }

    #[tokio::test]
    async fn a_hook_that_does_not_hear_is_an_error_unless_refs_have_changed() {
        for dispensable in [false, true] {
            let (mut near, far) = UnixStream::pair().unwrap();
            drop(far);
            let (say, said) = Say::channel();
            let speaks = async move {
                // More than there is room for: somebody has to take it.
                for _ in 0..1000 {
                    say.line("text").await;
                }
            };
            let (told, ()) = tokio::join!(tell(&mut near, said, dispensable), speaks);
            assert_eq!(told.ok(), dispensable.then_some(false));
        }
    }

    /// Has a hook ask about refs that are to become something else.
    async fn ask(far: &mut UnixStream, hook: Hook, names: &[&str]) {
        let ids = ["1", "2"].map(|digit| digit.repeat(40)).join(" ");
        let change = |name: &&str| RefChange::from_line(&format!("{ids} {name}")).unwrap();
        let question = Question {
            hook,
            changes: names.iter().map(change).collect(),
            quarantine: None,
            options: Vec::new(),
            certificate: None,
        };
        let json = serde_json::to_vec(&question).unwrap();
        far.read_u8().await.unwrap();
        far.write_u32(json.len().try_into().unwrap()).await.unwrap();
        far.write_all(&json).await.unwrap();
    }

    #[tokio::test]
    async fn what_follows_a_change_of_refs_is_done_though_nobody_hears_of_it() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let asks = async move { ask(&mut far, Hook::Post, &[]).await };
        let (gate, course, mut before) = (Agrees::default(), Course::default(), Refused::new());
        let answered = answer(near, Path::new("/r.git"), &gate, &mut before, &course);
        let (answered, ()) = tokio::join!(answered, asks);
        assert!(gate.done.load(Ordering::Relaxed));
        answered.unwrap();
    }

    #[tokio::test]
    async fn a_push_is_decided_when_a_ref_may_change() {
        let (one, two) = ("refs/heads/one", "refs/heads/two");
        for (refused, names, decided) in [
            (vec![], vec![one], true),
            (vec![one], vec![one, two], true),
            (vec![one], vec![one], false),
            (vec![], vec![two, two], false),
        ] {
            let (near, mut far) = UnixStream::pair().unwrap();
            let (gate, course) = (Agrees::default(), Course::default());
            let mut before = refused.iter().map(|it| ((*it).to_owned(), "no".to_owned())).collect();
            let answered = answer(near, Path::new("/r.git"), &gate, &mut before, &course);
            let (answered, ()) = tokio::join!(answered, ask(&mut far, Hook::Proc, &names));
            answered.unwrap();
            assert_eq!(course.decided.into_inner(), decided, "{refused:?} {names:?}");
        }
    }
}
