//! Requests that are sent ahead have the answers of a server that does one after the other.

use std::collections::HashMap;

use tokio::io::AsyncWriteExt as _;

use crate::client::{
    Answer, CREATE, Client, EOF, FAILURE, NO_SUCH_FILE, OK, READ, WRITE, fields, packet,
};

/// Sends all of them in one piece; the answers by number, whatever order they came in.
async fn all(client: &mut Client, requests: Vec<(u8, crate::client::Fields)>) -> Vec<Answer> {
    let count = requests.len();
    let bytes: Vec<u8> = requests
        .into_iter()
        .enumerate()
        .flat_map(|(id, (kind, fields))| packet(kind, 1000 + id as u32, fields))
        .collect();
    let mut answers = HashMap::new();
    let (mut reader, mut writer) = tokio::io::split(&mut client.stream);
    let send = async { writer.write_all(&bytes).await.unwrap() };
    let receive = async {
        use tokio::io::AsyncReadExt as _;
        for _ in 0..count {
            let mut bytes = vec![0; reader.read_u32().await.unwrap() as usize];
            reader.read_exact(&mut bytes).await.unwrap();
            let id = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
            answers.insert(id, Answer { kind: bytes[0], id, body: bytes[5..].to_vec() });
        }
    };
    tokio::join!(send, receive);
    (0..count).map(|id| answers.remove(&(1000 + id as u32)).unwrap()).collect()
}

#[tokio::test]
async fn a_file_under_two_handles_and_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::account(dir.path()).await;
    let one = client.opened("f", READ | WRITE | CREATE).await;
    let two = client.opened("f", READ | WRITE).await;
    for round in 0..50u64 {
        let text = format!("{round:08}");
        let mut requests = Vec::new();
        for n in 0..20u64 {
            requests.push((6, fields().text(&one).u64(n * 8).text(&text)));
            requests.push((5, fields().text(&two).u64(n * 8).u32(8)));
            requests.push((17, fields().text("f")));
        }
        requests.push((10, fields().text(&two).u32(1).u64(0)));
        requests.push((5, fields().text(&one).u64(0).u32(8)));
        let answers = all(&mut client, requests).await;
        for n in 0..20 {
            assert_eq!(answers[3 * n].status(), OK);
            assert_eq!(&answers[3 * n + 1].body[4..], text.as_bytes());
            assert_eq!(answers[3 * n + 2].size_and_mode().0, 8 * (n as u64 + 1));
        }
        assert_eq!(answers[60].status(), OK);
        assert_eq!(answers[61].status(), EOF);
    }
}

#[tokio::test]
async fn paths_that_change_and_what_looks_at_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::account(dir.path()).await;
    for _ in 0..50 {
        let made = fields().text("d").u32(0);
        let answers = all(
            &mut client,
            vec![
                (17, fields().text("d")),
                (14, made.clone()),
                (17, fields().text("d")),
                (14, made),
                (18, fields().text("d").text("e")),
                (17, fields().text("d")),
                (17, fields().text("e")),
                (15, fields().text("e")),
                (17, fields().text("e")),
            ],
        )
        .await;
        let kinds: Vec<u32> =
            answers.iter().map(|it| if it.kind == 105 { 105 } else { it.status() }).collect();
        let missing = NO_SUCH_FILE;
        assert_eq!(kinds, [missing, OK, 105, FAILURE, OK, missing, 105, OK, missing]);
    }
}

#[tokio::test]
async fn what_comes_after_a_close_is_too_late_and_what_came_before_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::account(dir.path()).await;
    for _ in 0..50 {
        let handle = client.opened("f", READ | WRITE | CREATE).await;
        let mut requests: Vec<_> = (0..100u64)
            .map(|n| (6, fields().text(&handle).u64(n * 1000).text([1; 1000])))
            .collect();
        requests.push((4, fields().text(&handle)));
        requests.push((5, fields().text(&handle).u64(0).u32(10)));
        requests.push((17, fields().text("f")));
        requests.push((13, fields().text("f")));
        let answers = all(&mut client, requests).await;
        assert!(answers[..101].iter().all(|answer| answer.status() == OK));
        assert_eq!(answers[101].status(), FAILURE);
        assert_eq!(answers[102].size_and_mode().0, 100_000);
        assert_eq!(answers[103].status(), OK);
    }
}

#[tokio::test]
async fn all_answers_come_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::account(dir.path()).await;
    let handle = client.opened("f", WRITE | CREATE).await;
    let writes: Vec<u8> = (0..200u32)
        .flat_map(|id| packet(6, id, fields().text(&handle).u64(u64::from(id)).text("x")))
        .collect();
    client.send(&writes).await;
    client.stream.shutdown().await.unwrap();
    for _ in 0..200 {
        assert_eq!(client.answer().await.status(), OK);
    }
    client.ended().await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), vec![b'x'; 200]);
}
