use std::{os::unix::fs::PermissionsExt as _, os::unix::net::UnixListener as Std, time::Duration};

use alknet_git::EventKind;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use super::*;
use crate::home::Home;

fn home(folder: &tempfile::TempDir) -> Home {
    Home::open(Some(folder.path().join("home"))).unwrap()
}

fn pong(request: Request) -> Outcome {
    match request {
        Request::Ping {} => Ok(serde_json::to_value(Pong::of_this_process())?),
        Request::Reload {} => Err(Failure::new("it is wrong").hint("mend it")),
        Request::Tell { event } => Ok(serde_json::to_value(event.repository)?),
    }
}

/// Does something while the node answers.
async fn while_served<T>(home: &Home, work: impl Future<Output = T>) -> T {
    let lock = home.serve_lock().unwrap();
    let listener = Listener::bind(home, &lock).unwrap();
    let serve = listener.serve(|request| std::future::ready(pong(request)));
    let work = timeout(Duration::from_secs(30), work);
    tokio::select! {
        done = work => done.unwrap(),
        () = serve => panic!("it stopped"),
    }
}

/// What comes back for these bytes, up to the end.
async fn raw(home: &Home, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(home.path(SOCKET)).await.unwrap();
    // The node may have read enough before all is sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_request_is_answered_and_a_failure_keeps_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(&folder);
    while_served(&home, async {
        let pong: Pong = ask(&home, Request::Ping {}).await.unwrap();
        assert_eq!(pong, Pong::of_this_process());
        let error = ask::<Reloaded>(&home, Request::Reload {}).await.unwrap_err();
        let failure = Failure::from(error);
        assert_eq!(failure.message(), "it is wrong");
        assert_eq!(failure.hints(), ["mend it"]);
        assert_eq!(raw(&home, b"{\"do\":\"ping\"}\n").await.lines().count(), 1);
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_gets_at_the_socket_and_it_goes_with_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(&folder);
    while_served(&home, async {
        let mode = |name| std::fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(SOCKET), mode("run")), (0o600, 0o700));
    })
    .await;
    assert!(!home.path(SOCKET).exists());
    let error = ask::<Pong>(&home, Request::Ping {}).await.unwrap_err();
    assert!(matches!(error, ControlError::NotServed), "{error}");
}

#[tokio::test]
async fn the_socket_of_a_killed_node_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(&folder);
    drop(Std::bind(home.path(SOCKET)).unwrap());
    assert!(home.path(SOCKET).exists());
    let error = ask::<Pong>(&home, Request::Ping {}).await.unwrap_err();
    assert!(matches!(error, ControlError::NotServed), "{error}");
    while_served(&home, async { ask::<Pong>(&home, Request::Ping {}).await.unwrap() }).await;
}

#[tokio::test]
async fn nonsense_is_refused_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(&folder);
    while_served(&home, async {
        for bytes in [
            &b"\n"[..],
            b"nonsense\n",
            b"{\"do\":\"everything\"}\n",
            b"{\"do\":\"ping\",\"more\":1}\n",
            b"[]\n",
        ] {
            let answer = raw(&home, bytes).await;
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("does not know this request"), "{message}");
        }
        // No line at all, half of one, bytes that are no text, one that is too long.
        let long = vec![b' '; 2 * usize::try_from(MAX_REQUEST).unwrap()];
        for bytes in [&b""[..], b"{\"do\":", b"\xff\xfe\n", &long] {
            assert_eq!(raw(&home, bytes).await, "");
        }
        ask::<Pong>(&home, Request::Ping {}).await.unwrap();
    })
    .await;
}

/// Those who hold connections and say nothing lose them, and the rest is answered.
#[tokio::test]
async fn the_silent_do_not_keep_others_out() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(&folder);
    while_served(&home, async {
        let mut silent = Vec::new();
        for _ in 0..12 {
            silent.push(UnixStream::connect(home.path(SOCKET)).await.unwrap());
        }
        tokio::time::pause();
        ask::<Pong>(&home, Request::Ping {}).await.unwrap();
        tokio::time::resume();
        let mut first = silent.remove(0);
        assert_eq!(first.read(&mut [0; 1]).await.unwrap(), 0, "it was not closed");
    })
    .await;
}

#[tokio::test]
async fn a_folder_with_a_long_name_has_a_socket_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path().join("n".repeat(120)))).unwrap();
    while_served(&home, async { ask::<Pong>(&home, Request::Ping {}).await.unwrap() }).await;
    assert!(!home.path(SOCKET).exists());
}

#[test]
fn requests_look_as_they_are_documented() {
    let text = |request| serde_json::to_value(request).unwrap();
    assert_eq!(text(Request::Ping {}), json!({"do": "ping"}));
    assert_eq!(text(Request::Reload {}), json!({"do": "reload"}));
    let mut event = Event::new(EventKind::Created, &"team/notes".parse().unwrap(), None);
    event.at = 7;
    let told = json!({"event": "created", "repository": "team/notes", "at": 7});
    assert_eq!(text(Request::Tell { event }), json!({"do": "tell", "event": told}));
}
