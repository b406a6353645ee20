use std::fs;

use super::*;

fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    parse::parse(text, Path::new("/home")).finish()
}

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err().iter().map(Problem::to_string).collect()
}

#[test]
fn nothing_is_needed() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn every_key_is_read() {
    let text = r#"
        listen = "[::]:443"
        cover = true
        decoy = "redirect:https://example.org/"
        certificate = { chain = "chain.pem", key = "/key.pem" }
        origins = ["https://example.org"]
        drain = "90s"
        authorized_keys = "keys"
        identities = "people.toml"
        pam = "off"
        accounts = { alice = ["alice", "www-data"], "*" = "nobody" }
        [limits]
        sessions = 1
        sessions_per_address = 7
        sessions_per_identity = 2
        streams_per_identity = 3
        handshakes = 4
        handshakes_per_address = 5
        failures_per_address = 6
        ban = "30d"
        exempt = ["192.0.2.7", "2001:db8::/32"]
        [ssh]
        access = "scope"
        key_exchange = "post-quantum"
        accept_env = ["GIT_*"]
        set_env = ["EDITOR=vim"]
        banner = "Hello"
        revoked_keys = "krl"
        [sftp.exports.notes]
        path = "notes"
        quota = "1GiB"
        atomic = true
        [shell]
        sessions = 8
        viewers = 9
        detached = "7d"
        [git]
        folder = "git"
        hooks = "hooks"
        hook_deadline = "4m"
        allowed_signers = "signers"
        public = false
        default_branch = "trunk"
        quota = "9GiB"
        largest_push = "8GiB"
        largest_object = "7GiB"
        exchanges = 5
        exchanges_per_identity = 4
        deadline = "1h"
        idle = "2m"
        memory = "3GiB"
        automatic_gc = false
        bundles = true
        mirror_networks = ["10.0.0.0/8"]
        mirror_interval = "30m"
        mirror_deadline = "20m"
        mirrors_at_once = 3
        [recordings]
        who = ["alice"]
        accounts = ["root"]
        input = true
        keep = 9
        max_age = "30d"
        max_size = "1GiB"
        [forward]
        audit_destinations = true
        connections_per_identity = 10
        listeners_per_identity = 11
        [[forward.allow]]
        connect = ["DB.internal:5432", "/run/db/*"]
        listen = ["localhost:8000-8999"]
        udp = ["*:53"]
        scope = "forward:db"
        [[forward.allow]]
        connect = ["[2001:db8::/32]:*"]
        [audit]
        keep = 2
        max_size = "512KiB"
        [[import.mcp]]
        namespace = "far"
        url = "http://far.example/mcp"
        token_file = "far.token"
        plain_http = true
        [[import.openapi]]
        namespace = "pets"
        document = "pets.json"
        base_url = "http://pets.example/v1"
        token_file = "pets.token"
        plain_http = true
        [api]
        cors_origins = ["https://app.example"]
    "#;
    let config = parse(text).unwrap();
    let read = serde_json::to_value(&config).unwrap();
    let expected = serde_json::json!({
        "listen": "[::]:443",
        "cover": true,
        "decoy": "redirect:https://example.org/",
        "certificate": { "chain": "/home/chain.pem", "key": "/key.pem" },
        "origins": ["https://example.org"],
        "drain": "90s",
        "authorized_keys": "/home/keys",
        "identities": "/home/people.toml",
        "pam": "off",
        "accounts": { "alice": ["alice", "www-data"], "*": ["nobody"] },
        "limits": {
            "sessions": 1, "sessions_per_address": 7, "sessions_per_identity": 2,
            "streams_per_identity": 3,
            "handshakes": 4, "handshakes_per_address": 5, "failures_per_address": 6,
            "ban": "30d", "exempt": ["192.0.2.7/32", "2001:db8::/32"],
        },
        "ssh": {
            "access": "scope", "key_exchange": "post-quantum", "accept_env": ["GIT_*"],
            "set_env": ["EDITOR=vim"], "banner": "Hello",
            "revoked_keys": "/home/krl",
        },
        "sftp": { "exports": {
            "notes": { "path": "/home/notes", "quota": "1GiB", "atomic": true },
        } },
        "shell": { "sessions": 8, "viewers": 9, "detached": "7d" },
        "git": {
            "folder": "/home/git", "hooks": "/home/hooks",
            "hook_deadline": "4m", "allowed_signers": "/home/signers",
            "public": false, "default_branch": "trunk",
            "quota": "9GiB", "largest_push": "8GiB", "largest_object": "7GiB",
            "exchanges": 5, "exchanges_per_identity": 4,
            "deadline": "1h", "idle": "2m", "memory": "3GiB",
            "automatic_gc": false, "bundles": true,
            "mirror_networks": ["10.0.0.0/8"], "mirror_interval": "30m",
            "mirror_deadline": "20m", "mirrors_at_once": 3,
        },
        "recordings": {
            "who": ["alice"], "accounts": ["root"], "input": true,
            "keep": 9, "max_age": "30d", "max_size": "1GiB",
        },
        "forward": {
            "audit_destinations": true,
            "connections_per_identity": 10, "listeners_per_identity": 11,
            "allow": [{
                "connect": ["db.internal:5432", "/run/db/*"],
                "listen": ["localhost:8000-8999"],
                "udp": ["*:53"],
                "scope": "forward:db",
            }, { "connect": ["[2001:db8::/32]:*"] }],
        },
        "audit": { "keep": 2, "max_size": "512KiB" },
        "import": { "mcp": [{
            "namespace": "far",
            "url": "http://far.example/mcp",
            "token_file": "/home/far.token",
            "plain_http": true,
        }], "openapi": [{
            "namespace": "pets",
            "document": "/home/pets.json",
            "base_url": "http://pets.example/v1",
            "token_file": "/home/pets.token",
            "plain_http": true,
        }] },
        "api": { "cors_origins": ["https://app.example"] },
    });
    assert_eq!(read, expected);
    // No key is left at its default, so that none is forgotten here.
    let Difference { live, fixed } =
        config.difference(&Config::default(), &Config::default()).unwrap();
    assert_eq!(live.len() + fixed.len(), schema::keys(&schema().to_value(), "").len());
}

#[test]
fn all_is_a_word_and_names_are_a_list() {
    let who = |text: &str| parse(&format!("[recordings]\nwho = {text}")).map(|it| it.recordings);
    assert!(who("\"all\"").unwrap().rules().all);
    assert!(!who("[\"all\"]").unwrap().rules().all);
    assert!(problems("[recordings]\nwho = \"alice\"")[0].contains("\"all\" or a list of names"));
}

/// What an older release took stays right.
#[test]
fn a_bare_number_is_seconds() {
    assert_eq!(parse("drain = 5").unwrap().drain, Span::seconds(5));
    assert!(problems("drain = -5")[0].contains("90s, 10m"));
}

#[test]
fn the_defaults_are_those_of_the_parts() {
    let (ours, node) = (Limits::default().of_node(), alknet_core::Limits::default());
    assert_eq!(format!("{ours:?}"), format!("{node:?}"));
    assert_eq!(Audit::default().limits(), crate::audit::Limits::default());
    let (ours, shells) = (Shell::default().limits(), alknet_shell::ShellLimits::default());
    assert_eq!(format!("{ours:?}"), format!("{shells:?}"));
    assert_eq!(Forward::default().policy(), alknet_host::network::Settings::default());
}

#[test]
fn a_rule_for_forwarding_that_is_none_says_why() {
    let found = |rule: &str| problems(&format!("[[forward.allow]]\n{rule}"))[0].clone();
    assert!(found("connect = ['10.0.0.5/8:1']").contains("write 10.0.0.0/8"));
    assert!(found("connect = ['127.1:80']").contains("four decimal numbers"));
    assert!(found("listen = ['localhost']").contains("HOST:PORT"));
    assert!(found("connect = ['*:*']\nscope = 'forward:*'").contains("belongs into grants"));
    assert!(found("allow = ['*:*']").contains("allow"));
}

#[test]
fn an_unknown_key_has_the_nearest_name_on_every_level() {
    for (text, nearest) in [
        ("listne = 1", Some("listen")),
        ("Cover = true", Some("cover")),
        ("authorized-keys = true", Some("authorized_keys")),
        ("[certificate]\nchian = 'x'\nchain = 'c'\nkey = 'k'", Some("certificate.chain")),
        ("[limits]\nsesions = 3", Some("limits.sessions")),
        ("[limit]\nsessions = 3", Some("limits")),
        ("handshakes = 3", Some("limits.handshakes")),
        ("[sssh]", Some("ssh")),
        ("something = 1", None),
    ] {
        let problems = parse(text).unwrap_err();
        let [Problem { wrong: problem::Wrong::UnknownKey { nearest: found, .. }, .. }] =
            &problems[..]
        else {
            panic!("{text}: {problems:?}")
        };
        assert_eq!(found.as_deref(), nearest, "{text}");
    }
}

#[test]
fn everything_that_is_wrong_is_named_with_its_line() {
    let text = "\
cover = 'yes'
listne = 1
origins = ['https://good.example', 'no origin']
[limits]
sessions = 0
ban = 'soon'
[certificate]
chain = 'x'
[ssh]
access = 'everybody'
";
    let found = problems(text);
    let expected = [
        "line 1: cover: invalid type: string \"yes\", expected a boolean",
        "line 2: there is no key \"listne\"",
        "line 3: origins: write an origin as https://HOST",
        "line 5: limits.sessions: invalid value: integer `0`, expected a nonzero u32",
        "line 6: limits.ban: write a time as 90s, 10m, 12h or 30d",
        "line 7: certificate: missing field `key`",
        "line 10: ssh.access: unknown variant `everybody`, expected `protocol` or `scope`",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn broken_toml_is_named_with_its_line() {
    let found = problems("cover = true\nlisten = = 1\n");
    assert!(found[0].starts_with("line 2: "), "{found:?}");
    assert!(!problems("[limits\n").is_empty() && !problems("limits = 3").is_empty());
    assert!(!problems("cover = true\ncover = false").is_empty(), "a key stands once");
}

/// What is wrong with a text in a folder and with what it names.
async fn check(root: &Path, text: &str) -> Vec<String> {
    match Config::checked(&root.join(FILE), text.into()).await {
        Ok(_) => Vec::new(),
        Err(ConfigError::Invalid { problems, .. }) => {
            problems.iter().map(Problem::to_string).collect()
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn what_the_file_names_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let text = "\
decoy = 'site'
identities = 'people.toml'
certificate = { chain = 'chain.pem', key = 'key.pem' }
authorized_keys = 'keys'
[ssh]
revoked_keys = 'krl'
[limits]
ban = '0s'
";
    let missing = check(root, text).await;
    for (found, expected) in missing.iter().zip([
        "line 1: decoy: ",
        "line 2: identities: ",
        "line 3: certificate.chain: ",
        "line 3: certificate.key: ",
        "line 6: ssh.revoked_keys: ",
        "line 8: limits.ban: ",
    ]) {
        assert!(found.starts_with(expected), "{found}");
    }
    assert_eq!(missing.len(), 6, "{missing:#?}");

    let pair = || rcgen::generate_simple_self_signed(["node.example".into()]).unwrap();
    let (one, other) = (pair(), pair());
    fs::create_dir(root.join("site")).unwrap();
    fs::write(root.join("people.toml"), "not toml").unwrap();
    fs::write(root.join("chain.pem"), one.cert.pem()).unwrap();
    fs::write(root.join("key.pem"), other.signing_key.serialize_pem()).unwrap();
    fs::write(root.join("krl"), "").unwrap();
    let text = text.replace("0s", "1s");
    let wrong = check(root, &text).await;
    assert_eq!(wrong.len(), 2, "{wrong:#?}");
    assert!(wrong[0].starts_with("line 2: identities: "), "{wrong:#?}");
    assert!(wrong[1].starts_with("line 3: certificate: the certificate and its key"), "{wrong:#?}");

    fs::write(root.join("people.toml"), "").unwrap();
    fs::write(root.join("key.pem"), one.signing_key.serialize_pem()).unwrap();
    assert_eq!(check(root, &text).await, [""; 0]);
    assert!(check(root, "decoy = 'krl'").await[0].contains("is not a folder"));
}

#[tokio::test]
async fn keys_that_others_can_change_are_a_problem() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let found = check(folder.path(), "authorized_keys = 'keys'").await;
    assert!(found[0].contains("others than its owner"), "{found:?}");
}

#[test]
fn values_are_written_as_they_are_read() {
    for text in ["0s", "90s", "10m", "12h", "30d", "100d"] {
        assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
    }
    assert_eq!("3600s".parse::<Span>().unwrap().to_string(), "1h");
    for text in ["1B", "512KiB", "64MiB", "1GiB"] {
        assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
    }
    for text in ["404", "/srv/www", "http://127.0.0.1:8080/", "redirect:https://example.org/"] {
        assert_eq!(text.parse::<Decoy>().unwrap().to_string(), text);
    }
    for bad in ["", "30", "d", "-1d", "1w", "1dd", "é", " 1s", "1 s", "99999999999d"] {
        assert!(bad.parse::<Span>().is_err() && bad.parse::<Size>().is_err(), "{bad}");
    }
    assert!("0B".parse::<Size>().is_err());
    for text in ["A=", "_B1=x y=z"] {
        assert_eq!(text.parse::<Variable>().unwrap().to_string(), text);
    }
    for bad in ["", "A", "=1", "1A=1", "A B=1", "A-B=1", "A=\0"] {
        assert!(bad.parse::<Variable>().is_err(), "{bad}");
    }
    for bad in ["", "localhost", "192.0.2.0/33", "192.0.2", "::/129"] {
        assert!(bad.parse::<Network>().is_err(), "{bad}");
    }
    for bad in ["https://secure.example", "http://host/path", "redirect:no url", "ftp://x"] {
        assert!(bad.parse::<Decoy>().is_err(), "{bad}");
    }
    for bad in ["example.org", "https://", "https://a/b", "https://u@a", "ftp://a", "null", ""] {
        assert!(bad.parse::<Origin>().is_err(), "{bad}");
    }
}

/// The reference without the marks of comments before its keys.
fn uncommented() -> String {
    let plain = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key.to_owned(),
        _ => line.to_owned(),
    };
    reference().lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_holds_the_defaults() {
    assert_eq!(parse(&reference()).unwrap(), Config::default());
    assert_eq!(parse(&uncommented()).unwrap(), Config::default());
}

#[test]
fn the_reference_explains_every_key() {
    let (reference, plain) = (reference(), uncommented());
    for key in schema::keys(&schema().to_value(), "") {
        let about = key.schema.get("description").and_then(|it| it.as_str()).unwrap_or_default();
        assert!(!about.is_empty(), "{} has no documentation", key.name);
        assert!(reference.contains(about.lines().next().unwrap()), "{}", key.name);
        let name = key.name.rsplit('.').next().unwrap();
        let written = [format!("\n{name} = "), format!("# Example: {name} = ")];
        assert!(written.iter().any(|it| plain.contains(it)), "{} is not written", key.name);
    }
}

#[test]
fn the_examples_of_the_reference_are_right() {
    let mut table = String::new();
    let mut count = 0;
    for line in reference().lines() {
        if line.starts_with('[') {
            table = format!("{line}\n");
        } else if let Some(example) = line.strip_prefix("# Example: ") {
            let config = parse(&format!("{table}{example}"));
            assert_ne!(config.unwrap(), Config::default(), "{example}");
            count += 1;
        }
    }
    assert!(count >= 4);
}

#[test]
fn a_difference_tells_what_a_running_node_takes_over() {
    let of = |text: &str| parse(text).unwrap();
    let started = of("listen = '[::]:1'\ndrain = '1s'");
    let applied = of("listen = '[::]:2'\ndrain = '2s'");
    let new = of("listen = '[::]:2'\ndrain = '2s'\n[ssh]\nrevoked_keys = 'a'\naccess = 'scope'");
    let difference = new.difference(&started, &applied).unwrap();
    // What needs a restart is told as long as it does.
    assert_eq!(difference.fixed, ["listen", "ssh.access"]);
    assert_eq!(difference.live, ["ssh.revoked_keys"]);
    assert_eq!(new.difference(&new, &new).unwrap(), Difference::default());
}
