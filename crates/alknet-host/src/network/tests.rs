//! The policy by tables and by attempts to get around it, with a resolver of the test's own.

mod paths;
mod sockets;
mod special;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use alknet_core::BoxFuture;
use alknet_testing::identities::identity;
use proptest::prelude::*;

use super::*;

/// Knows the names it is given, and counts how often it is asked.
#[derive(Clone, Default)]
struct Names(Arc<(HashMap<String, Vec<IpAddr>>, AtomicUsize)>);

impl Names {
    fn of(names: &[(&str, &[&str])]) -> Self {
        let parse = |text: &&str| text.parse().unwrap();
        let entry = |(name, addresses): &(&str, &[&str])| {
            ((*name).to_owned(), addresses.iter().map(parse).collect())
        };
        Self(Arc::new((names.iter().map(entry).collect(), AtomicUsize::new(0))))
    }

    fn asked(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str, _: Share) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.0.1.fetch_add(1, Ordering::Relaxed);
        let found = self.0.0.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into());
        Box::pin(async move { found })
    }
}

fn destinations(texts: &[&str]) -> Vec<Destination> {
    texts.iter().map(|text| text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))).collect()
}

fn connects(texts: &[&str]) -> Rule {
    Rule { connect: destinations(texts), ..Rule::default() }
}

fn listens(texts: &[&str]) -> Rule {
    Rule { listen: destinations(texts), ..Rule::default() }
}

fn settings(rules: Vec<Rule>) -> Settings {
    Settings { rules, ..Settings::default() }
}

fn tcp(host: &str, port: u16) -> Target {
    Target::Tcp { host: host.into(), port }
}

/// What would be dialled, without doing so.
async fn allowed(
    policy: &Policy,
    caller: &Identity,
    host: &str,
    port: u16,
) -> Result<Vec<IpAddr>, NetworkError> {
    let settings = policy.settings();
    let host = Host::parse(host).map_err(NetworkError::Host)?;
    let asked = Asked { verb: Verb::Connect, host: &host, port };
    asked.precheck(&settings.rules, caller)?;
    policy.allowed(&settings, caller, asked, Instant::now() + settings.timeout).await
}

/// One rule with these destinations, and a caller who may do everything.
async fn verdict(rule: &[&str], names: &Names, host: &str, port: u16) -> Vec<String> {
    let policy = Policy::with_resolver(settings(vec![connects(rule)]), names.clone());
    match allowed(&policy, &identity("anna", &["*"]), host, port).await {
        Ok(addresses) => addresses.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    }
}

#[tokio::test]
async fn a_destination_is_matched_by_name_network_and_port() {
    let names = Names::of(&[
        ("db.internal", &["10.0.0.5"]),
        ("internal", &["10.0.0.6"]),
        ("a.b.internal", &["10.0.0.7"]),
        ("notinternal", &["10.0.0.8"]),
        ("www.example.org", &["93.184.215.14", "2606:2800:21f::1"]),
        ("both.example", &["10.1.2.3", "192.168.7.7"]),
    ]);
    const NO: &str = "no rule allows it";
    let cases: &[(&str, &str, u16, &[&str])] = &[
        ("db.internal:5432", "db.internal", 5432, &["10.0.0.5"]),
        ("db.internal:5432", "DB.Internal.", 5432, &["10.0.0.5"]),
        ("DB.internal.:5432", "db.internal", 5432, &["10.0.0.5"]),
        ("db.internal:5432", "db.internal", 5433, &[NO]),
        ("db.internal:5432", "10.0.0.5", 5432, &[NO]),
        ("*.internal:443", "db.internal", 443, &["10.0.0.5"]),
        ("*.internal:443", "a.b.internal", 443, &["10.0.0.7"]),
        ("*.internal:443", "internal", 443, &[NO]),
        ("*.internal:443", "notinternal", 443, &[NO]),
        ("10.0.0.0/8:1-1024", "10.255.0.1", 1024, &["10.255.0.1"]),
        ("10.0.0.0/8:1-1024", "10.255.0.1", 1025, &[NO]),
        ("10.0.0.0/8:1-1024", "11.0.0.1", 80, &[NO]),
        ("10.0.0.0/8:*", "::ffff:10.0.0.1", 80, &["10.0.0.1"]),
        ("[::ffff:10.0.0.0/104]:*", "10.0.0.1", 80, &["10.0.0.1"]),
        ("10.0.0.0/8:*", "both.example", 80, &["10.1.2.3"]),
        ("[2001:db8::/32]:*", "2001:db8::1", 9, &["2001:db8::1"]),
        ("[2001:db8::/32]:*", "[2001:db8::1]", 9, &["2001:db8::1"]),
        ("[2001:db8::7]:9", "2001:db8::8", 9, &[NO]),
        ("public:443", "www.example.org", 443, &["93.184.215.14", "2606:2800:21f::1"]),
        ("public:443", "both.example", 443, &[NO]),
        ("*:*", "both.example", 1, &["10.1.2.3", "192.168.7.7"]),
        ("localhost:8080", "localhost", 8080, &["127.0.0.1", "::1"]),
        ("localhost:8080", "LOCALHOST.", 8080, &["127.0.0.1", "::1"]),
        ("localhost:8080", "127.0.0.1", 8080, &["127.0.0.1"]),
        ("localhost:8080", "127.0.0.2", 8080, &[NO]),
        ("127.0.0.1:8080", "localhost", 8080, &["127.0.0.1"]),
    ];
    for (rule, host, port, expected) in cases {
        let found = verdict(&[rule], &names, host, *port).await;
        assert_eq!(found, *expected, "{host}:{port} by {rule}");
    }
}

#[tokio::test]
async fn nothing_is_allowed_without_a_rule_and_nothing_is_looked_up() {
    let names = Names::of(&[("db.internal", &["10.0.0.5"])]);
    for rule in [&[][..], &["db.internal:1"], &["other:5432"], &["/run/*"]] {
        let found = verdict(rule, &names, "db.internal", 5432).await;
        assert_eq!(found, ["no rule allows it"]);
    }
    let nobody = identity("anna", &["forward:connect:other", "forward:listen", "ssh"]);
    let rules = settings(vec![connects(&["*:*"])]);
    let policy = Policy::with_resolver(rules, names.clone());
    let refused = allowed(&policy, &nobody, "db.internal", 5432).await.unwrap_err();
    assert_eq!(refused.to_string(), "no grant of forward:connect:db.internal:5432");
    assert_eq!(names.asked(), 0, "a name that no rule allows was given to DNS");
}

#[tokio::test]
async fn the_first_rule_that_matches_decides() {
    let names = Names::of(&[("db.internal", &["10.0.0.5"]), ("web.internal", &["10.0.0.9"])]);
    let scoped = Rule { scope: Some("forward:db".into()), ..connects(&["db.internal:*"]) };
    let policy = Policy::with_resolver(settings(vec![scoped, connects(&["*:*"])]), names);
    let cases = [
        (&["forward:db"][..], "db.internal", true),
        (&["forward:db"][..], "web.internal", false),
        (&["forward:connect:*"][..], "db.internal", false),
        (&["forward:connect:*"][..], "web.internal", true),
        (&["forward:connect:web.internal:80"][..], "web.internal", true),
        (&["forward:connect:web.internal:81"][..], "web.internal", false),
        (&["forward:connect:10.0.0.9"][..], "web.internal", false),
        (&["forward:udp", "forward:listen", "ssh"][..], "web.internal", false),
        (&["forward"][..], "db.internal", true),
    ];
    for (scopes, host, expected) in cases {
        let found = allowed(&policy, &identity("anna", scopes), host, 80).await;
        assert_eq!(found.is_ok(), expected, "{scopes:?} to {host}: {found:?}");
    }
}

/// DNS rebinding: whoever owns a name makes it resolve to the node itself.
#[tokio::test]
async fn a_name_never_leads_to_a_special_address() {
    let names = Names::of(&[
        ("evil.example", &["127.0.0.1"]),
        ("half.example", &["127.0.0.1", "93.184.215.14"]),
        ("meta.example", &["169.254.169.254"]),
        ("mapped.example", &["::ffff:127.0.0.1"]),
        ("nat64.example", &["64:ff9b::7f00:1"]),
        ("sixtofour.example", &["2002:7f00:1::"]),
        ("zero.example", &["0.0.0.0"]),
        ("zero6.example", &["::"]),
        ("v6.example", &["::1"]),
        ("link.example", &["fe80::1"]),
        ("aws.example", &["fd00:ec2::254"]),
        ("my.localhost", &["127.0.0.1"]),
    ]);
    for rule in
        ["localhost:*", "*:*", "public:*", "*.example:*", "0.0.0.0/0:*", "[::/0]:*", "[::/96]:*"]
    {
        for name in names.0.0.keys().filter(|name| *name != "half.example") {
            let found = verdict(&[rule], &names, name, 80).await;
            assert!(found[0].starts_with("no rule"), "{name} by {rule}: {found:?}");
        }
    }
    let exact: Vec<String> = names.0.0.keys().map(|name| format!("{name}:80")).collect();
    let exact: Vec<&str> = exact.iter().map(String::as_str).collect();
    for name in names.0.0.keys().filter(|name| *name != "half.example") {
        let found = verdict(&exact, &names, name, 80).await;
        assert!(found[0].starts_with("no rule names the address"), "{name}: {found:?}");
    }
    // What passed is dialled, and nothing else that the name has.
    assert_eq!(verdict(&["*:*"], &names, "half.example", 80).await, ["93.184.215.14"]);
    // A rule that names the address allows it to those with a grant of that address.
    let policy = Policy::with_resolver(settings(vec![connects(&["127.0.0.1:80"])]), names);
    let by_name = identity("anna", &["forward:connect:evil.example:80"]);
    let refused = allowed(&policy, &by_name, "evil.example", 80).await.unwrap_err();
    assert_eq!(refused.to_string(), "no grant of forward:connect:127.0.0.1:80");
    let by_address = identity("anna", &["forward:connect"]);
    assert!(allowed(&policy, &by_address, "evil.example", 80).await.is_ok());
}

/// A resolver whose answer changes: what was checked is what is dialled.
#[tokio::test]
async fn a_name_is_resolved_once() {
    #[derive(Default)]
    struct Turncoat(AtomicUsize);
    impl Resolve for Turncoat {
        fn resolve<'a>(&'a self, _: &'a str, _: Share) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            let first = self.0.fetch_add(1, Ordering::Relaxed) == 0;
            let address: IpAddr = if first { "192.0.2.1" } else { "127.0.0.1" }.parse().unwrap();
            Box::pin(async move { Ok(vec![address]) })
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let rules =
        Settings { timeout: Duration::from_millis(300), ..settings(vec![connects(&["*:*"])]) };
    let policy = Policy::with_resolver(rules, Turncoat::default());
    let target = tcp("turncoat.example", port);
    let anna = identity("anna", &["*"]);
    // 192.0.2.0/24 is nobody's (RFC 5737); a second look-up would reach the listener.
    policy.connect(&anna, &target).await.unwrap_err();
    let refused = policy.connect(&anna, &target).await.unwrap_err();
    assert!(refused.is_refusal(), "{refused}");
    let accepted = timeout(Duration::ZERO, listener.accept()).await;
    assert!(accepted.is_err(), "the listener was reached");
}

/// Names whose servers do not answer hold up whoever asks for them, and nobody else: each
/// takes its thread long after the deadline.
#[tokio::test(start_paused = true)]
async fn nobody_takes_all_of_the_resolver() {
    #[derive(Clone, Default)]
    struct Stuck(Arc<std::sync::Mutex<Vec<(String, Share)>>>);
    impl Resolve for Stuck {
        fn resolve<'a>(
            &'a self,
            name: &'a str,
            share: Share,
        ) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            self.0.lock().unwrap().push((name.to_owned(), share));
            Box::pin(std::future::pending())
        }
    }
    let stuck = Stuck::default();
    let policy = Policy::with_resolver(settings(vec![connects(&["*:*"])]), stuck.clone());
    let [anna, bert] = ["anna", "bert"].map(|it| identity(it, &["*"]));
    let asks = async |caller: &Identity| {
        let error = allowed(&policy, caller, "blackhole.example", 80).await.unwrap_err();
        assert!(matches!(error, NetworkError::TimedOut), "{error}");
        stuck.0.lock().unwrap().len()
    };
    for _ in 0..100 {
        assert!(asks(&anna).await <= 8);
    }
    assert_eq!(asks(&bert).await, 9, "bert's name was not looked up");
    stuck.0.lock().unwrap().pop();
    stuck.0.lock().unwrap().pop();
    assert_eq!(asks(&anna).await, 8, "what is over is not given back");
}

#[tokio::test]
async fn odd_spellings_of_an_address_are_no_names() {
    let names = Names::default();
    for host in [
        "0x7f.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "127.0.0.01",
        "0X7F.0.0.1",
        "1",
        "0",
        "127.0.0.0x1",
        "",
        ".",
        "..",
        "localhost..",
        ".localhost",
        "a..b",
        "[127.0.0.1]",
        "[localhost]",
        "[::1",
        "::1]",
        "::1%lo",
        "fe80::1%eth0",
        "local host",
        "localhost\0",
        "localhost\n",
        "ｌocalhost",
        "127。0。0。1",
        "a/b",
        "user@localhost",
        "*",
        "*.internal",
        "10.0.0.0/8",
        "localhost:80",
    ] {
        for rule in ["*:*", "localhost:*", "127.0.0.0/8:*"] {
            let found = verdict(&[rule], &names, host, 80).await;
            let bad = found[0].starts_with("not the name") || found[0].starts_with("write an");
            assert!(bad, "{host:?} by {rule}: {found:?}");
        }
    }
    assert_eq!(names.asked(), 0);
    for host in ["[::ffff:127.0.0.1]", "::ffff:7f00:1", "::FFFF:127.0.0.1", "0:0::ffff:7f00:1"] {
        let found = verdict(&["*:*"], &names, host, 80).await;
        assert_eq!(found, ["no rule names the address 127.0.0.1"], "{host}");
        assert_eq!(verdict(&["127.0.0.1:80"], &names, host, 80).await, ["127.0.0.1"]);
    }
    let long = format!("{}.example", "a".repeat(64));
    assert!(verdict(&["*:*"], &names, &long, 80).await[0].starts_with("not the name"));
}

#[test]
fn destinations_are_written_in_one_way() {
    for text in [
        "db.internal:5432",
        "*.internal:443",
        "10.0.0.0/8:1-1024",
        "[2001:db8::/32]:*",
        "public:443",
        "*:*",
        "/run/postgresql/*",
        "/tmp/app-*",
        "/run/x.sock",
        "localhost:1-2",
        "/*",
    ] {
        assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "db",
        "db:",
        "db:0",
        "db:0-5",
        "db:9-1",
        "db:65536",
        "db:+1",
        "db:1-",
        "db:-1",
        ":80",
        "*db:1",
        "d*b:1",
        "*.*.x:1",
        "*.10.0.0.1:1",
        "2001:db8::1:80",
        "10.0.0.5/8:1",
        "127.1:80",
        "/a/../b",
        "/a//b",
        "/./a",
        "/",
        "//*",
        "/a/*/b",
        "/a*b",
        "relative/path",
        "*.:1",
        "a b:1",
        "[db]:1",
        "10.0.0.0/33:1",
    ] {
        assert!(text.parse::<Destination>().is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_text_is_a_panic(text in "\\PC{0,80}") {
        drop(Host::parse(&text));
        drop(Host::parse_bind(&text));
        if let Ok(destination) = text.parse::<Destination>() {
            prop_assert_eq!(destination.to_string().parse(), Ok(destination));
        }
    }

    /// However a name is spelt, what is looked up is the text that was compared.
    #[test]
    fn a_name_has_one_form(text in "[a-zA-Z0-9._x-]{0,40}") {
        if let Ok(Host::Name(name)) = Host::parse(&text) {
            prop_assert_eq!(Host::parse(&name), Ok(Host::Name(name.clone())));
            prop_assert_eq!(&name, &text.trim_end_matches('.').to_ascii_lowercase());
            // Nor does the C library read an address in it.
            let address = format!("{name}:1").parse::<SocketAddr>();
            prop_assert!(address.is_err());
            let number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
            prop_assert!(!name.rsplit('.').next().is_some_and(number));
        }
    }
}
