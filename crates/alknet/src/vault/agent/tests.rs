use std::{os::unix::net::UnixListener as Std, thread};

use super::*;

fn home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path().join("state"))).unwrap();
    (folder, home)
}

#[tokio::test]
async fn where_nobody_listens_there_is_no_agent() {
    let (_folder, home) = home();
    for _ in 0..2 {
        assert!(!lock(&home).await.unwrap());
        assert!(key(&home).await.unwrap().is_none());
        // What a killed one leaves.
        if !home.path(SOCKET).exists() {
            drop(Std::bind(home.path(SOCKET)).unwrap());
        }
    }
}

/// One that does not answer may hold the key: nobody is told that it is locked.
#[tokio::test(start_paused = true)]
async fn an_agent_that_is_silent_or_hangs_up_is_not_said_to_be_locked() {
    let (_folder, home) = home();
    let listener = Std::bind(home.path(SOCKET)).unwrap();
    let error = lock(&home).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(key(&home).await.is_err() && remaining(&home).await.is_err());
    tokio::time::resume();
    let hangs_up = thread::spawn(move || listener.incoming().take(5).for_each(drop));
    let error = lock(&home).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    hangs_up.join().unwrap();
}
