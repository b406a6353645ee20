//! A session of any packets ends, with no panic, and touches nothing outside of its export.
#![no_main]

use std::sync::LazyLock;

use alknet_sftp::{Export, Grant, Session, SessionError, Shared, View};
use libfuzzer_sys::fuzz_target;

/// A folder with an export beside a file that no session may change.
struct Rig {
    folder: std::path::PathBuf,
    export: Export,
}

static RIG: LazyLock<Rig> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("alknet-fuzz-sftp-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("e")).unwrap();
    std::fs::write(folder.join("secret"), "secret").unwrap();
    let _ = std::os::unix::fs::symlink("../secret", folder.join("e/link"));
    let export = Export::new("e", &folder.join("e")).unwrap().with_quota(1 << 20);
    Rig { folder, export }
});

fuzz_target!(|input: (Vec<(u8, u32, &[u8])>, &[u8])| {
    let (packets, noise) = input;
    let mut bytes = vec![0, 0, 0, 5, 1, 0, 0, 0, 3];
    // Packets of the right length get further than noise, which comes behind them.
    for (kind, id, body) in packets {
        let length = u32::try_from(5 + body.len()).unwrap();
        bytes.extend(length.to_be_bytes());
        bytes.push(kind);
        bytes.extend(id.to_be_bytes());
        bytes.extend(body);
    }
    bytes.extend(noise);
    let session =
        Session::new(View::exports(Grant::new(&RIG.export, true, true)), Shared::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(session.serve(&bytes[..], Vec::new()));
    assert!(!matches!(ended, Err(SessionError::Panic(_))));
    assert_eq!(std::fs::read(RIG.folder.join("secret")).unwrap(), b"secret");
    assert_eq!(std::fs::read_dir(&RIG.folder).unwrap().count(), 2);
});
