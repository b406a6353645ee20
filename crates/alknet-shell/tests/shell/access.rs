//! Who sees what.

use alknet_shell::{
    client::{self, ViewError},
    wire::{RefusalCode, Which},
};

use crate::node::{Node, code, soon};

#[tokio::test]
async fn another_identity_neither_sees_nor_takes_a_session_nor_learns_of_it() {
    let node = Node::new();
    let (ann, eve) = (node.knows("ann", &["shell"]), node.knows("eve", &["*"]));
    let mut viewer = node.view(&ann, |request| request.name = Some("secret".parse().unwrap()));
    viewer.types("echo u''p\r").await;
    viewer.sees("up\r\n").await;
    let session = viewer.saw(|seen| seen.attached[0].session);
    assert!(client::list(&node.connect(&eve)).await.unwrap().is_empty());
    let refusal = async |name: &str| {
        let name = name.parse().unwrap();
        let taken = node.view(&eve, |request| {
            request.name = Some(name);
            request.create = false;
        });
        let (outcome, text) = taken.ends().await;
        assert!(text.is_empty());
        outcome.unwrap_err().to_string()
    };
    assert_eq!(refusal("secret").await, refusal("nothing").await);
    for which in [
        Which { session: Some(session), name: None },
        Which { session: None, name: Some("secret".parse().unwrap()) },
    ] {
        let there = client::end(&node.connect(&eve), which).await.unwrap_err().to_string();
        let other = Which { session: None, name: Some("nothing".parse().unwrap()) };
        let nowhere = client::end(&node.connect(&eve), other).await.unwrap_err().to_string();
        assert_eq!(there, nowhere);
    }
    // The same name is another session for them.
    let mut own = node.view(&eve, |request| request.name = Some("secret".parse().unwrap()));
    own.until("a session of their own", |seen| seen.attached.len() == 1).await;
    assert!(own.saw(|seen| seen.attached[0].created && seen.attached[0].session != session));
}

#[tokio::test]
async fn a_credential_for_looking_on_does_nothing_else() {
    let node = Node::new();
    let (ann, mut guest) = (node.knows("ann", &["shell"]), node.knows("guest", &["shell:view"]));
    // A token of hers with less in it.
    guest.id.clone_from(&ann.id);
    let none = node.view(&guest, |request| request.read_only = true);
    assert_eq!(code(none.ends().await.0), RefusalCode::NotFound);
    let mut viewer = node.view(&ann, |_| {});
    viewer.types("echo u''p\r").await;
    viewer.sees("up\r\n").await;
    let mut onlooker = node.view(&guest, |request| request.read_only = true);
    onlooker.sees("up").await;
    assert_eq!(code(node.view(&guest, |_| {}).ends().await.0), RefusalCode::NotFound);
    let which = Which { session: None, name: Some("main".parse().unwrap()) };
    assert!(client::end(&node.connect(&guest), which).await.is_err());
}

#[tokio::test]
async fn a_shell_ends_with_the_last_credential_that_attached_to_it() {
    let node = Node::new();
    let (ann, mut phone) = (node.knows("ann", &["shell"]), node.knows("phone", &["shell"]));
    phone.id.clone_from(&ann.id);
    node.forgets("phone");
    let key = alknet_core::KeyFingerprint::of_openssh_blob(b"phone");
    node.identities.add_key(key, phone.clone());
    let mut first = node.view(&ann, |request| {
        request.command = Some("echo $$ > pid; echo up; exec sleep 1000".into());
    });
    first.sees("up").await;
    let mut second = node.view(&phone, |_| {});
    second.sees("up").await;
    node.forgets("ann");
    node.dispatcher.recheck(&*node.identities).await;
    let (outcome, _) = first.ends().await;
    assert!(matches!(outcome, Err(ViewError::Closed(_) | ViewError::TurnedAway)), "{outcome:?}");
    // The other device's goes on.
    second.detaches().await;
    let listed = client::list(&node.connect(&phone)).await.unwrap();
    assert_eq!(listed.len(), 1);
    let pid = std::fs::read_to_string(node.file("pid")).unwrap();
    let running = || std::path::Path::new(&format!("/proc/{}", pid.trim())).exists();
    assert!(running());
    node.forgets("phone");
    soon("the end of the program", async {
        while running() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_of_one_account_is_not_handed_out_as_another_ones() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let mut viewer = node.view(&ann, |_| {});
    viewer.until("a session", |seen| !seen.attached.is_empty()).await;
    let own = viewer.saw(|seen| seen.attached[0].account.clone());
    for name in [None, Some("main".parse().unwrap())] {
        let other = node.view(&ann, |request| {
            request.name = name.clone();
            request.account = Some("nobody-else".into());
            request.create = false;
        });
        assert_eq!(code(other.ends().await.0), RefusalCode::NotFound);
        let same = node.view(&ann, |request| {
            request.name = name;
            request.account = Some(own.clone());
            request.create = false;
        });
        same.detaches().await;
    }
}

#[tokio::test]
async fn without_the_scope_there_is_nothing() {
    let node = Node::new();
    let bob = node.knows("bob", &["ssh", "call"]);
    let (outcome, _) = node.view(&bob, |_| {}).ends().await;
    assert!(matches!(outcome, Err(ViewError::TurnedAway | ViewError::Closed(_))), "{outcome:?}");
}
