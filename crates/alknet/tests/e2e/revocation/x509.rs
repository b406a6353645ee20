//! Clients of OpenSSL's that have X.509 certificates and no key that is Ed25519.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;

use super::{run, takes_away};
use crate::{
    node::{Home, Node},
    process::{Deadline, SOON, eventually, first_bytes, output, stdout, text},
    refusals::present_certificate,
};

/// A self-signed certificate of OpenSSL's, and its key.
struct X509 {
    certificate: PathBuf,
    key: PathBuf,
}

impl X509 {
    fn new(folder: &Path, name: &str) -> Self {
        let (certificate, key) =
            (folder.join(format!("{name}.pem")), folder.join(format!("{name}-key.pem")));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-days", "1", "-subj", &format!("/CN={name}")]);
        openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        stdout(&output(&mut openssl));
        Self { certificate, key }
    }

    /// `openssl s_client` with it.
    fn client(&self, node: &Node) -> Command {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-quiet", "-alpn", "alknet/ssh"]);
        openssl.args(["-connect", &node.address().to_string()]);
        openssl.arg("-cert").arg(&self.certificate).arg("-key").arg(&self.key);
        openssl
    }
}

#[test]
fn a_certificate_of_openssl_is_admitted_where_a_scope_is_needed() {
    let home = Home::new();
    fs::write(home.path().join("alknet.toml"), "ssh.access = 'scope'").unwrap();
    let node = Node::start(&home, &[]);
    let [known, lacking, stranger] =
        ["known", "lacking", "stranger"].map(|name| X509::new(home.path(), name));
    for (name, it, scope) in [("known", &known, "ssh"), ("lacking", &lacking, "git")] {
        let file = it.certificate.to_str().unwrap();
        run(&home, &["peer", "add", name, "--key", file, "--scope", scope]);
    }
    assert_eq!(&first_bytes(&mut known.client(&node)), b"SSH-2.0-");
    for (it, reason) in
        [(&stranger, "not authenticated"), (&lacking, "outside the caller's scopes")]
    {
        let refused = output(&mut it.client(&node));
        assert!(refused.stdout.is_empty(), "{}", text(&refused));
        home.audited(reason, |event| event["event"] == "refused" && event["reason"] == reason);
    }

    // The certificate is no secret, and worth nothing without its key.
    let chain = CertificateDer::from_pem_file(&known.certificate).unwrap();
    let key = |it: &X509| PrivateKeyDer::from_pem_file(&it.key).unwrap();
    present_certificate(&node, chain.clone(), key(&known)).unwrap();
    let said = present_certificate(&node, chain, key(&stranger)).unwrap_err();
    assert!(said.contains("DecryptError") || said.contains("BadSignature"), "{said}");

    // And it can be taken away like any other key.
    let mut client = known.client(&node).stdin(Stdio::piped()).spawn().unwrap();
    let guard = Deadline::kill(client.id(), SOON);
    let starts = |event: &&Value| event["event"] == "session-start";
    eventually("its sessions", || (home.audit().iter().filter(starts).count() == 3).then_some(()));
    let file = known.certificate.to_str().unwrap();
    takes_away(&home, &["peer", "remove", "known", "--key", file], &["tls"]);
    client.wait().unwrap();
    assert!(!guard.passed(), "the session went on");
    assert!(output(&mut known.client(&node)).stdout.is_empty());
}
