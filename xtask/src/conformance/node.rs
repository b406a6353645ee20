//! The node that the suites are run against.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{files, sh::Cmd};

const START: Duration = Duration::from_secs(20);

/// `alknet serve` with a state folder of its own. Ends with its owner.
pub(super) struct Node {
    pub(super) dir: PathBuf,
    /// Its origin.
    pub(super) url: String,
    /// Where its MCP is.
    pub(super) mcp: String,
    /// The file of a token for operations that can be called with anything.
    pub(super) token: PathBuf,
    server: Child,
}

impl Node {
    pub(super) fn start(dir: &Path, binary: &Path, scopes: &str) -> Result<Self> {
        let home = dir.join("home");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // What the suite takes for the node's own origin, because it expects no TLS.
        let config =
            format!("listen = \"127.0.0.1:{port}\"\norigins = [\"http://localhost:{port}\"]\n");
        files::write(&home.join("alknet.toml"), config.as_bytes())?;
        let log = fs::File::create(dir.join("node.log"))?;
        let mut command = Command::new(binary);
        command.arg("serve").env("ALKNET_HOME", &home);
        let server = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let url = format!("https://localhost:{port}");
        let mcp = format!("{url}/alknet/mcp");
        let token = dir.join("token");
        let node = Self { dir: dir.to_owned(), url, mcp, token, server };
        wait_for(&home.join("run/address"))?;
        let create = ["token", "create", "--name", "suites", "--scope", scopes, "--json"];
        let created = Cmd::new(dir, binary).args(create).env("ALKNET_HOME", &home).read()?;
        let created: serde_json::Value = serde_json::from_str(&created)?;
        let secret = created.get("token").and_then(serde_json::Value::as_str);
        files::write(
            &node.token,
            secret.context("`alknet token create` gave no token")?.as_bytes(),
        )?;
        Ok(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn wait_for(address: &Path) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < START {
        if fs::read_to_string(address).is_ok_and(|text| text.ends_with('\n')) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("the node did not start in {} s", START.as_secs())
}
