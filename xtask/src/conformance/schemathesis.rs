//! Schemathesis against the description that a node gives of its operations.

use std::{fs, path::Path};

use anyhow::Result;

use super::node::Node;
use crate::{files, programs, sh, suites};

/// The token may call everything that needs no scope of its own: the state folder is there
/// for this alone.
const SCOPES: &str = "call";
/// What is left out, and why:
/// - `ignored_auth` and `missing_required_header` expect 401, and a node answers whoever it
///   does not know as if nothing were there;
/// - `positive_data_acceptance` expects a schema to say all: which names are taken, or how a
///   scope is written, none does;
/// - two operations end what the suite itself needs: its sessions and its token.
const CONFIG: &str = r#"
tls-verify = false
request-timeout = 60
suppress-health-check = ["all"]
color = false

[generation]
deterministic = true
max-examples = 50
with-security-parameters = false

[checks]
ignored_auth.enabled = false
missing_required_header.enabled = false
positive_data_acceptance.enabled = false

[[operations]]
include-path-regex = "/(node/end-session|tokens/revoke)$"
enabled = false

# They may go on for ever.
[[operations]]
include-path-regex = "/(audit/tail|git/events)$"
headers = { Request-Timeout = "1" }
"#;

/// No server error, no undocumented status, no answer that does not fit its schema.
pub(super) fn run(root: &Path, dir: &Path) -> Result<()> {
    let suite = suites::python(root)?.join("schemathesis");
    let node = Node::start(dir, &programs::build(root)?.join("alknet"), SCOPES)?;
    let token = fs::read_to_string(&node.token)?;
    // A token stands in no argument.
    let headers =
        format!("headers = {{ Authorization = \"Bearer {token}\", Request-Timeout = \"50\" }}\n");
    files::write(&dir.join("schemathesis.toml"), (headers + CONFIG).as_bytes())?;
    sh::Cmd::new(dir, suite)
        .args(["--config-file", "schemathesis.toml", "run"])
        .arg(format!("{}/alknet/api/openapi.json", node.url))
        .run()
}
