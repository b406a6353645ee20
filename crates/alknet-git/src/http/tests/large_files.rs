//! The API of Git LFS.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;

const BASE: &str = "private.git/info/lfs";

fn oid(content: &str) -> String {
    hex::encode(Sha256::digest(content))
}

fn post(path: &str, body: &Value) -> Request<Body> {
    request("POST", &format!("{BASE}/{path}"), LFS, body.to_string())
}

fn put(content: &str, named: &str) -> Request<Body> {
    let path = format!("{BASE}/objects/{named}");
    let request = request("PUT", &path, "application/octet-stream", content.to_owned());
    with(request, "content-length", &content.len().to_string())
}

fn object(content: &str) -> Request<Body> {
    get(&format!("{BASE}/objects/{}", oid(content)))
}

fn batch(operation: &str, content: &str) -> Request<Body> {
    let objects = [json!({"oid": oid(content), "size": content.len()})];
    let reference = json!({"name": "refs/heads/main"});
    let batch = json!({"operation": operation, "transfers": ["lfs-standalone-file", "basic"],
        "ref": reference, "objects": objects, "hash_algo": "sha256"});
    post("objects/batch", &batch)
}

impl Here {
    async fn json(&self, request: Request<Body>) -> Value {
        let answer = self.ask("git", request).await;
        assert_eq!(answer.header("content-type"), LFS, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }
}

#[tokio::test]
async fn an_object_goes_there_and_comes_back() {
    let here = Here::new();
    let (content, oid) = ("large file", oid("large file"));
    let base = format!("https://node.example:4433{PREFIX}{BASE}");
    let missing = here.json(batch("download", content)).await;
    assert_eq!(missing["objects"][0]["error"]["code"], 404);
    let upload = here.json(batch("upload", content)).await;
    let actions = &upload["objects"][0]["actions"];
    assert_eq!(actions["upload"]["href"], format!("{base}/objects/{oid}"));
    assert_eq!(actions["verify"]["href"], format!("{base}/verify"));
    assert_eq!((&upload["transfer"], &upload["hash_algo"]), (&json!("basic"), &json!("sha256")));

    let verify = || post("verify", &json!({"oid": oid, "size": content.len()}));
    assert_eq!(here.ask("git", verify()).await.status, 404);
    assert_eq!(here.ask("git", put(content, &oid)).await.status, 200);
    assert_eq!(here.ask("git", verify()).await.status, 200);
    let again = here.json(batch("upload", content)).await;
    assert_eq!(again["objects"][0], json!({"oid": oid, "size": content.len()}));
    let download = here.json(batch("download", content)).await;
    let href = &download["objects"][0]["actions"]["download"]["href"];
    assert_eq!(*href, format!("{base}/objects/{oid}"));

    let whole = here.ask("git:read:private", object(content)).await;
    assert_eq!((whole.status.as_u16(), whole.text().as_str()), (200, content));
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    let part = here.ask("git", with(object(content), "range", "bytes=6-9")).await;
    assert_eq!((part.status.as_u16(), part.text().as_str()), (206, "file"));
    assert_eq!(part.header("content-range"), "bytes 6-9/10");
    let behind = here.ask("git", with(object(content), "range", "bytes=10-")).await;
    assert_eq!(behind.status, 416);
}

#[tokio::test]
async fn wrong_objects_leave_nothing() {
    let here = Here::with(&Settings { quota: Some(100_000), ..Settings::default() });
    let mut endless = put("good", &oid("good"));
    endless.headers_mut().remove("content-length");
    let long = "x".repeat(100_000);
    for (request, status) in [
        (put("other", &oid("good")), 422),
        (with(put("good", &oid("good")), "content-length", "5"), 422),
        (with(put("good", &oid("good")), "content-length", "3"), 422),
        (with(put("good", &oid("good")), "content-encoding", "gzip"), 415),
        (endless, 411),
        (put(&long, &oid(&long)), 507),
        (put("good", "../../config"), 404),
    ] {
        let answer = here.ask("git", request).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let kept = here.git_dir("private").join("lfs/objects");
        assert!(!kept.exists());
        let incoming = std::fs::read_dir(here.git_dir("private").join("lfs/incoming"));
        assert_eq!(incoming.into_iter().flatten().count(), 0);
    }
    let full = here.json(batch("upload", &long)).await;
    assert_eq!(full["objects"][0]["error"]["code"], 507);
}

#[tokio::test]
async fn two_at_once_do_not_both_have_the_last_room() {
    let (one, other) = ("1".repeat(60_000), "2".repeat(60_000));
    let here = Here::with(&Settings { quota: Some(100_000), ..Settings::default() });
    let (one, other) = tokio::join!(
        here.ask("git", put(&one, &oid(&one))),
        here.ask("git", put(&other, &oid(&other)))
    );
    assert!([one.status, other.status].contains(&StatusCode::INSUFFICIENT_STORAGE));
}

#[tokio::test]
async fn odd_batches_are_refused() {
    let here = Here::new();
    let object = json!({"oid": oid("x"), "size": 1});
    let many = vec![object.clone(); crate::lfs::MAX_BATCH + 1];
    for (body, status) in [
        (json!({"operation": "upload", "objects": many}), 413),
        (json!({"operation": "delete", "objects": []}), 422),
        (json!({"operation": "upload"}), 422),
        (json!({"operation": "upload", "objects": [{"oid": "../x", "size": 1}]}), 422),
        (json!({"operation": "upload", "objects": [{"oid": oid("x"), "size": -1}]}), 422),
        (json!({"operation": "upload", "objects": [object], "hash_algo": "sha512"}), 409),
        (json!({"operation": "upload", "objects": [object], "transfers": ["tus"]}), 422),
        (json!({"operation": "x".repeat(2 << 20)}), 413),
    ] {
        let answer = here.ask("git", post("objects/batch", &body)).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), LFS, "{answer:?}");
    }
    let off = Here::with(&Settings { lfs: false, ..Settings::default() });
    assert_eq!(off.ask("git", batch("upload", "x")).await.status, 403);
    let nowhere = with(batch("upload", "x"), "host", "user@node.example");
    assert_eq!(here.ask("git", nowhere).await.status, 400);
}

#[tokio::test]
async fn files_are_locked_and_unlocked() {
    let here = Here::new();
    let lock = || post("locks", &json!({"path": "a b.bin", "ref": {"name": "refs/heads/x"}}));
    let made = here.ask("git", lock()).await;
    assert_eq!(made.status, 201);
    let made: Value = serde_json::from_slice(&made.body).unwrap();
    let lock_id = made["lock"]["id"].as_str().unwrap();
    assert_eq!(made["lock"]["owner"]["name"], "ann");
    assert_eq!(here.ask("git", lock()).await.status, 409);

    let list = here.json(get(&format!("{BASE}/locks?path=a%20b.bin&limit=&refspec=x"))).await;
    assert_eq!(list["locks"], json!([made["lock"]]));
    let none = here.json(get(&format!("{BASE}/locks?path=other"))).await;
    assert_eq!(none, json!({"locks": []}));
    let both = here.json(post("locks/verify", &json!({"cursor": "", "limit": 0}))).await;
    assert_eq!(both, json!({"ours": [made["lock"]], "theirs": []}));

    let unlock = |force| post(&format!("locks/{lock_id}/unlock"), &json!({"force": force}));
    let mut ben = auth("git", AuthMethod::Bearer);
    ben.identity = Some(Arc::new(identity("ben", &["git"])));
    let theirs = here.ask_by(ben.clone(), post("locks/verify", &json!({}))).await;
    assert_eq!(serde_json::from_slice::<Value>(&theirs.body).unwrap()["theirs"][0], made["lock"]);
    assert_eq!(here.ask_by(ben.clone(), unlock(false)).await.status, 403);
    assert_eq!(here.ask_by(ben, unlock(true)).await.status, 200);
    assert_eq!(here.ask("git", unlock(false)).await.status, 404);
}

/// The objects of a first push arrive before the push that makes the repository.
#[tokio::test]
async fn a_repository_to_come_keeps_its_objects() {
    let here = Here::new();
    let oid = oid("large");
    let made = |path: &str| format!("made.git/info/lfs/{path}");
    let batch = json!({"operation": "upload", "objects": [{"oid": oid, "size": 5}]});
    let batch = request("POST", &made("objects/batch"), LFS, batch.to_string());
    assert_eq!(here.ask("git", batch).await.status, 200);
    // Whoever pushes next waits until what the last push has left is gone.
    drop(here.server.0.tenants.enter(&"made".parse().unwrap()).await);
    assert!(!here.git_dir("made").exists(), "nothing was put into it");
    let put = request("PUT", &made(&format!("objects/{oid}")), "", "large");
    let put = with(put, "content-length", "5");
    assert_eq!(here.ask("git", put).await.status, 200);
    assert_eq!(here.ask("git", get(&made(&format!("objects/{oid}")))).await.text(), "large");
}
