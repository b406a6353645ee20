use std::{
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Barrier},
    thread,
};

use super::*;

fn home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path().join("state"))).unwrap();
    (folder, home)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn folders_and_files_are_the_owners_alone() {
    let (_folder, home) = home();
    home.write("secret", b"x").unwrap();
    assert!(home.create("other", b"x").unwrap());
    assert_eq!(mode(home.root()), 0o700);
    assert_eq!(mode(&home.path("run")), 0o700);
    assert_eq!(mode(&home.path("secret")), 0o600);
    assert_eq!(mode(&home.path("other")), 0o600);
}

#[test]
fn a_folder_that_others_can_write_is_refused() {
    let (_folder, home) = home();
    fs::set_permissions(home.root(), fs::Permissions::from_mode(0o770)).unwrap();
    let error = Home::open(Some(home.root().to_path_buf())).unwrap_err();
    assert!(matches!(error, HomeError::Exposed { .. }), "{error}");
}

#[test]
fn a_write_leaves_no_temporary_file() {
    let (_folder, home) = home();
    home.write("file", b"one").unwrap();
    home.write("file", b"two").unwrap();
    assert!(!home.create("file", b"three").unwrap());
    assert_eq!(home.read("file").unwrap().unwrap(), b"two");
    let names: Vec<_> = fs::read_dir(home.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "run")
        .collect();
    assert_eq!(names, ["file"]);
    assert_eq!(home.read("missing").unwrap(), None);
}

#[test]
fn of_many_creators_one_wins() {
    let (_folder, home) = home();
    let barrier = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|i: u8| {
            let (home, barrier) = (home.clone(), barrier.clone());
            thread::spawn(move || {
                barrier.wait();
                home.create("once", &[i; 64]).unwrap().then_some(i)
            })
        })
        .collect();
    let winners: Vec<u8> = threads.into_iter().filter_map(|t| t.join().unwrap()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(home.read("once").unwrap().unwrap(), [winners[0]; 64]);
}

#[test]
fn updates_do_not_lose_each_other() {
    let (_folder, home) = home();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let home = home.clone();
            thread::spawn(move || {
                for _ in 0..8 {
                    home.update::<_, HomeError>("count", |old| {
                        let mut new = old.unwrap_or_default();
                        new.push(b'.');
                        Ok((Some(new), ()))
                    })
                    .unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(home.read("count").unwrap().unwrap().len(), 64);
}

#[test]
fn one_node_serves_a_folder() {
    let (_folder, home) = home();
    assert_eq!(home.served_by().unwrap(), None);
    let lock = home.serve_lock().unwrap();
    assert_eq!(home.served_by().unwrap(), Some(Some(std::process::id())));
    let error = home.serve_lock().unwrap_err();
    assert!(matches!(error, HomeError::Served { pid: Some(_), .. }), "{error}");
    drop(lock);
    assert_eq!(home.served_by().unwrap(), None);
    home.serve_lock().unwrap();
}

#[test]
fn the_address_is_there_until_it_is_removed() {
    let (_folder, home) = home();
    assert_eq!(home.address().unwrap(), None);
    home.write_address("[::1]:4433".parse().unwrap()).unwrap();
    assert_eq!(home.address().unwrap(), Some("[::1]:4433".parse().unwrap()));
    home.remove_address().unwrap();
    home.remove_address().unwrap();
    assert_eq!(home.address().unwrap(), None);
}

#[test]
fn what_killed_processes_left_of_a_file_is_swept() {
    let (_folder, home) = home();
    let left = [".vault.0123456789abcdef.new", ".vault.fedcba9876543210.new"];
    let others = [".vault.key.0123456789abcdef.new", ".vault.notes.new", "vault", ".vault"];
    for name in left.iter().chain(&others) {
        fs::write(home.path(name), b"x").unwrap();
    }
    home.sweep("vault").unwrap();
    assert!(left.iter().all(|name| !home.path(name).exists()));
    assert!(others.iter().all(|name| home.path(name).exists()));
}

#[test]
fn a_lock_that_somebody_has_is_not_waited_for() {
    let (_folder, home) = home();
    let held = home.lock("vault").unwrap();
    assert!(home.try_lock("vault").unwrap().is_none());
    drop(held);
    assert!(home.try_lock("vault").unwrap().is_some());
}
