//! Files that are taken and sent have the places of exchanges, and for a bounded time.

use std::{io, sync::Mutex, time::Duration};

use alknet_core::{AuditEvent, AuditSink};
use futures_util::stream;
use tokio::time::{sleep, timeout};

use super::*;

const LENGTH: usize = 4 << 20;
const BUNDLE: &str = "private.git/bundles/17.bundle";
const OBJECT: &str =
    "private.git/info/lfs/objects/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// What was recorded.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Log {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Here {
    /// With a bundle and a large file, and room for one exchange of each caller.
    fn narrow(log: Log) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(folder.path()).unwrap();
        repositories.create(&"private".parse().unwrap(), &Settings::default()).unwrap();
        let engine = InstalledGit::find().unwrap();
        let mut config = GitConfig::new(repositories, engine, Audit::new(log));
        config.limits.exchanges_per_caller = 1;
        config.limits.bounds.total = Duration::from_secs(30 * 60);
        let here = Self { folder, server: GitServer::new(config) };
        let oid = OBJECT.rsplit('/').next().unwrap();
        for file in ["bundles/17.bundle", &format!("lfs/objects/aa/aa/{oid}")] {
            let path = here.git_dir("private").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![7; LENGTH]).unwrap();
        }
        here
    }

    /// An answer whose body nobody has taken yet.
    async fn begin(&self, path: &str) -> Response {
        let auth = auth("git:read:private", AuthMethod::Bearer);
        let router = routes(self.server.clone()).layer(Extension(auth));
        let response = router.oneshot(get(path)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-length"], LENGTH.to_string());
        response
    }
}

#[tokio::test(start_paused = true)]
async fn a_download_has_its_place_until_it_ends() {
    for path in [BUNDLE, OBJECT] {
        let here = Here::narrow(Log::default());
        let first = here.begin(path).await;
        assert_eq!(here.ask("git", get(path)).await.status, 503, "{path}");
        drop(first);
        let whole = here.ask("git", get(path)).await;
        assert_eq!((whole.status.as_u16(), whole.body.len()), (200, LENGTH), "{path}");

        // Whoever takes nothing loses it, and does not think that this was all.
        let stalled = here.begin(path).await;
        sleep(Duration::from_secs(180)).await;
        assert_eq!(here.ask("git", get(path)).await.status, 200, "{path}");
        assert!(to_bytes(stalled.into_body(), usize::MAX).await.is_err(), "{path}");
    }
}

#[tokio::test]
async fn a_bundle_is_a_fetch_in_the_audit_log() {
    let log = Log::default();
    let here = Here::narrow(log.clone());
    here.ask("git:read:private", get(BUNDLE)).await;
    here.ask("git:read:private", with(get(BUNDLE), "range", "bytes=5-24")).await;
    here.ask("git:read:private", get("private.git/bundles/18.bundle")).await;
    let entries = log.0.lock().unwrap();
    let told: Vec<_> = entries
        .iter()
        .filter(|it| it.event == "git-fetch")
        .map(|it| (it.repository.as_deref(), it.file.as_deref(), it.bytes_read))
        .collect();
    let fetch = |bytes| (Some("private"), Some("17.bundle"), Some(bytes));
    assert_eq!(told, [fetch(LENGTH as u64), fetch(20)]);
    assert!(entries.iter().all(|it| it.identity.is_some()));
}

#[tokio::test(start_paused = true)]
async fn who_sends_an_object_too_slowly_loses_the_place() {
    let here = Here::narrow(Log::default());
    let path = format!("private.git/info/lfs/objects/{}", "b".repeat(64));
    let body = Body::from_stream(stream::pending::<io::Result<Bytes>>());
    let endless =
        with(request("PUT", &path, "application/octet-stream", body), "content-length", "9");
    let answer = timeout(Duration::from_secs(3600), here.ask("git", endless)).await.unwrap();
    assert_eq!(answer.status, 408, "{answer:?}");
    assert_eq!(here.ask("git", get(BUNDLE)).await.status, 200);
}

/// So many bytes each time that somebody has waited so long.
fn slowly(bytes: usize, each: Duration) -> Body {
    let piece = move |()| async move {
        sleep(each).await;
        Some((Ok::<_, io::Error>(Bytes::from(vec![7; bytes])), ()))
    };
    Body::from_stream(stream::unfold((), piece))
}

#[tokio::test(start_paused = true)]
async fn who_sends_an_object_byte_by_byte_loses_the_place() {
    let here = Here::narrow(Log::default());
    let put = |body: Body| {
        let path = format!("private.git/info/lfs/objects/{}", "b".repeat(64));
        let put = request("PUT", &path, "application/octet-stream", body);
        with(put, "content-length", &(1_u64 << 30).to_string())
    };
    let minutes = |count: u64| Duration::from_secs(count * 60);
    let slow = put(slowly(1, Duration::from_secs(30)));
    let answer = timeout(minutes(2), here.ask("git", slow)).await.unwrap();
    assert_eq!(answer.status, 408, "{answer:?}");
    // Fast enough each minute, and still not for ever.
    let steady = put(slowly(100_000, Duration::from_secs(50)));
    let answer = timeout(minutes(60), here.ask("git", steady)).await.unwrap();
    assert_eq!(answer.status, 408, "{answer:?}");
    assert_eq!(here.ask("git", get(BUNDLE)).await.status, 200);
}
