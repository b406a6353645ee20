//! Who may do what, as the owner arranges it and asks about it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use alknet_core::KeyFingerprint;

use crate::machine::Machine;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ laptop";
const CA: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X team";
const CA_FINGERPRINT: &str = "SHA256:SvzqXV/w1JLsbntg1WRzuMw9vHAaDQHjIKLlxH0h1EM";

#[test]
fn an_authority_is_trusted_for_its_principals() {
    let machine = Machine::new();
    let add = ["peer", "add", "bob", "--ca", CA, "--principal", "bob", "--principal", "a team"];
    machine.ok(&[&add[..], &["--scope", "git:read:notes"]].concat());
    let listed = machine.json(&["peer", "list", "--json"]);
    let authorities = listed[0]["authorities"].as_array().unwrap();
    let principals: Vec<_> = authorities.iter().map(|of| of["principal"].clone()).collect();
    assert_eq!(principals, ["a team", "bob"]);
    assert!(authorities.iter().all(|of| of["fingerprint"] == CA_FINGERPRINT), "{listed}");
    let table = machine.ok(&["peer", "list"]);
    assert!(table.contains(&format!("ca {CA_FINGERPRINT} for bob")), "{table}");
    machine.ok(&["peer", "remove", "bob", "--ca", CA, "--principal", "bob"]);
    assert!(!machine.ok(&["peer", "list"]).contains("for bob"));
    machine.ok(&["peer", "remove", "bob", "--ca", CA_FINGERPRINT]);
    let message = machine.fails(1, &["peer", "remove", "bob", "--ca", CA_FINGERPRINT]);
    assert!(message.contains("no such authority"), "{message}");
    machine.fails(2, &["peer", "add", "bob", "--ca", CA]);
    let node = format!("ed25519:{}", "ab".repeat(32));
    let message = machine.fails(1, &["peer", "add", "bob", "--ca", &node, "--principal", "b"]);
    assert!(message.contains("needs an OpenSSH public key"), "{message}");
}

#[test]
fn a_certificate_is_a_key() {
    let machine = Machine::new();
    let file = machine.folder().join("client.pem");
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let params = rcgen::CertificateParams::new(["client".to_owned()]).unwrap();
    let certificate = params.self_signed(&pair).unwrap();
    fs::write(&file, certificate.pem()).unwrap();
    let add = ["peer", "add", "alice", "--scope", "ssh", "--key"];
    machine.ok(&[&add[..], &[file.to_str().unwrap()]].concat());
    let fingerprint = KeyFingerprint::of_certificate(certificate.der()).to_string();
    let listed = machine.json(&["peer", "list", "--json"]);
    let key = &listed[0]["keys"][0];
    assert_eq!((&key["fingerprint"], &key["kind"]), (&fingerprint.clone().into(), &"x509".into()));
    machine.ok(&["peer", "remove", "alice", "--key", &fingerprint]);
    machine.ok(&[&add[..], &[&fingerprint]].concat());
    // An Ed25519 key counts by itself, as it does in a handshake.
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let params = rcgen::CertificateParams::new(["client".to_owned()]).unwrap();
    fs::write(&file, params.self_signed(&pair).unwrap().pem()).unwrap();
    machine.ok(&[&add[..], &[file.to_str().unwrap()]].concat());
    let listed = machine.json(&["peer", "list", "--json"]);
    let kinds: Vec<_> =
        listed[0]["keys"].as_array().unwrap().iter().map(|key| key["kind"].clone()).collect();
    assert!(kinds.contains(&"ed25519".into()), "{listed}");
    fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let message = machine.fails(1, &[&add[..], &[file.to_str().unwrap()]].concat());
    assert!(message.contains("no X.509 certificate"), "{message}");
}

fn explain(machine: &Machine, args: &[&str]) -> (Option<i32>, String) {
    let done = machine.run(&[&["peer", "explain"][..], args].concat());
    assert_eq!(done.stderr, "", "{args:?}");
    (done.code, done.stdout.trim_end().to_owned())
}

#[test]
fn explain_names_the_rule() {
    let machine = Machine::new();
    let scopes = "alknet/git:read:*,forward:connect:*:443";
    machine.ok(&["peer", "add", "alice", "--key", KEY, "--scope", scopes]);
    for (args, code, told) in [
        (
            &["alice", "forward:connect:db:443"][..],
            0,
            "allowed: by scope forward:connect:*:443 of the peer alice",
        ),
        (&["alice", "alknet/git:read:x"], 0, "allowed: by scope git:read:* of the peer alice"),
        (
            &["alice", "git:write:notes"],
            1,
            "denied: nothing alice has covers git:write:notes (has: forward:connect:*:443,git:read:*)",
        ),
        (&["owner", "anything"], 0, "allowed: by scope * of the peer owner"),
        (
            &["alice", "git:read:x", "--key", KEY],
            0,
            "allowed: by scope git:read:* of the key \
             SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE of alice",
        ),
    ] {
        assert_eq!(explain(&machine, args), (Some(code), told.into()), "{args:?}");
    }
    let report = machine.run(&["peer", "explain", "alice", "ssh", "--json"]);
    assert_eq!(report.code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((&report["allowed"], &report["scope"]), (&false.into(), &().into()));
    machine.fails(2, &["peer", "explain", "alice", "ssh:"]);
    let message = machine.fails(1, &["peer", "explain", "bob", "ssh"]);
    assert!(message.contains("there is no peer bob\nhint: "), "{message}");
}

#[test]
fn explain_knows_what_a_token_lacks_and_what_was_revoked() {
    let machine = Machine::new();
    machine.ok(&["peer", "add", "alice", "--scope", "git,ssh"]);
    let create = ["token", "create", "--peer", "alice", "--scope", "git:read", "--json"];
    let token = machine.json(&create);
    let id = token["id"].as_str().unwrap();
    let of = |action| explain(&machine, &["alice", action, "--token", id]);
    assert_eq!(of("git:read:notes").0, Some(0));
    let denied = format!(
        "denied: alice has git, but nothing that the token {id} has covers git:write (has: git:read)"
    );
    assert_eq!(of("git:write"), (Some(1), denied));
    let message = machine.fails(1, &["peer", "explain", "owner", "git", "--token", id]);
    assert!(message.contains("is not owner's but alice's"), "{message}");
    machine.ok(&["token", "revoke", id]);
    let (code, told) = of("git:read:notes");
    let expected = format!("denied: the token {id} admits nobody: it was revoked at ");
    assert!(code == Some(1) && told.starts_with(&expected) && told.ends_with("UTC by owner"));
    let all = machine.json(&["token", "list", "--all", "--json"]);
    assert_eq!((&all[0]["id"], &all[0]["revoked"]["by"]), (&id.into(), &"owner".into()));
    assert!(machine.ok(&["token", "list", "--all"]).contains("revoked "));
    machine.ok(&["peer", "remove", "alice"]);
    let message = machine.fails(1, &["peer", "explain", "alice", "git"]);
    assert!(message.contains("there is no peer alice: it was revoked at "), "{message}");
}

#[test]
fn people_of_a_file_are_explained_too() {
    let machine = Machine::new();
    machine.ok(&["id"]);
    let made = machine.json(&["token", "hash", "--name", "ci", "--new", "--json"]);
    let token = made["token"].as_str().unwrap();
    let line = machine.run_with_input(&["token", "hash", "--name", "ci"], token);
    assert_eq!(line.code, Some(0), "{line:?}");
    assert!(!line.stdout.contains(token) && line.stdout.contains(made["key"].as_str().unwrap()));
    let bad = machine.run_with_input(&["token", "hash"], "password");
    assert!(bad.code == Some(1) && !bad.stderr.contains("password"), "{bad:?}");
    let people = machine.home().join("people.toml");
    let text = format!(
        "[people.carol]\nscopes = [\"git:read\"]\nkeys = [\"{KEY}\"]\ntokens = [{}]\n",
        line.stdout.trim_end()
    );
    fs::write(&people, text).unwrap();
    fs::write(machine.home().join("alknet.toml"), "identities = \"people.toml\"\n").unwrap();
    let allowed = "allowed: by scope git:read of the peer carol";
    assert_eq!(explain(&machine, &["carol", "git:read:x"]), (Some(0), allowed.into()));
    let by_key = explain(&machine, &["people.carol", "ssh", "--key", KEY]);
    let denied = "denied: nothing carol has covers ssh (has: git:read)";
    assert_eq!(by_key, (Some(1), denied.into()));
    fs::set_permissions(&people, fs::Permissions::from_mode(0o666)).unwrap();
    let message = machine.fails(1, &["peer", "explain", "carol", "ssh"]);
    assert!(message.contains("others than its owner can change it"), "{message}");
}
