//! Requests that are sent ahead have the answers of a server that does one after the other.

use std::collections::HashMap;

use tokio::io::AsyncWriteExt as _;

use crate::client::{
    Answer, BAD_MESSAGE, CREATE, Client, EOF, FAILURE, NO_SUCH_FILE, OK, READ, WRITE, fields,
    packet,
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

/// The same whether the kernel has it in its caches or a thread has to wait for it.
#[tokio::test]
async fn files_of_any_size_are_read_to_their_end() {
    let dir = tempfile::tempdir().unwrap();
    for size in [0, 1, 65_535, 65_536, 65_537, 300_000] {
        let content: Vec<u8> = (0..size).map(|at: u32| (at % 251) as u8).collect();
        std::fs::write(dir.path().join("f"), &content).unwrap();
        let mut client = Client::account(dir.path()).await;
        let handle = client.opened("f", READ).await;
        let read = |offset, length| (5, fields().text(&handle).u64(offset).u32(length));
        for piece in [1000, 65_536, 200_000] {
            let mut requests: Vec<_> =
                (0..size.div_ceil(piece)).map(|at| read(u64::from(at * piece), piece)).collect();
            requests.push(read(size.into(), piece));
            requests.push(read(u64::MAX, piece));
            let mut answers = all(&mut client, requests).await;
            let past = answers.split_off(answers.len() - 2);
            assert_eq!((past[0].status(), past[1].status()), (EOF, BAD_MESSAGE));
            let found: Vec<u8> = answers.iter().flat_map(|it| it.body[4..].to_vec()).collect();
            assert!(found == content, "{size} in pieces of {piece}");
        }
        assert_eq!(client.close(&handle).await.status(), OK);
        assert_eq!(client.read(&handle, 0, 1).await.status(), FAILURE);
        client.end().await.unwrap();
    }
}

/// Files that the system makes up are as large as they turn out to be.
#[tokio::test]
async fn files_without_a_size_are_read() {
    let mut client = Client::account("/proc/self".as_ref()).await;
    let status = client.content("status").await.unwrap();
    assert!(String::from_utf8(status).unwrap().contains("Threads:"));
    let system = client.content("/proc/sys/kernel/ostype").await.unwrap();
    assert_eq!(system, b"Linux\n");
}

/// What is done at once lets go of what waits for it.
#[tokio::test]
async fn what_changes_names_goes_on_after_what_looked() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::account(dir.path()).await;
    for round in 0..200 {
        std::fs::write(dir.path().join("f"), "x").unwrap();
        let requests = vec![
            (3, fields().text("f").u32(READ).u32(0)),
            (13, fields().text("f")),
            (3, fields().text("f").u32(READ).u32(0)),
            (14, fields().text("d").u32(0)),
            (15, fields().text("d")),
        ];
        let answers = all(&mut client, requests).await;
        let handle = Client::handle(&answers[0]);
        assert_eq!(answers[1].status(), OK);
        assert_eq!(answers[2].status(), NO_SUCH_FILE, "{round}");
        assert_eq!((answers[3].status(), answers[4].status()), (OK, OK));
        assert_eq!(client.read(&handle, 0, 9).await.body[4..], *b"x");
        assert_eq!(client.close(&handle).await.status(), OK);
    }
}
