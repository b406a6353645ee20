//! OpenSSH's client forwarding ports, sockets and its agent.

use std::{fs, net::Ipv4Addr, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    process::{Child, Command},
    time::sleep,
};

use crate::{
    node::{Node, soon},
    openssh::{Setup, finish, start, text},
};

/// A multiplexing client of a node, told by the way to forward.
struct Master {
    setup: Setup,
    control: String,
    _ssh: Child,
}

impl Master {
    async fn start(node: Node, options: &[&str]) -> Self {
        let setup = Setup::of(node).await;
        setup.key_file("id", &setup.node.user("alice", &["forward", "ssh"]));
        let control = format!("-oControlPath={}", setup.path("control").display());
        let ssh = start(&mut setup.ssh(&[&["-M", "-N", &control], options].concat()));
        exists(&setup.path("control")).await;
        Self { setup, control, _ssh: ssh }
    }

    /// What ssh says to `-O`; what it prints.
    async fn tell(&self, order: &str, forward: &[&str]) -> Result<String, String> {
        let options = [&[self.control.as_str(), "-O", order], forward].concat();
        let output = finish(&mut self.setup.ssh(&options)).await;
        match output.status.success() {
            true => Ok(text(&output.stdout).trim().into()),
            false => Err(text(&output.stderr).into()),
        }
    }
}

async fn exists(path: &Path) {
    let there = async {
        while !path.exists() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the socket", there).await;
}

/// Gives back what it gets, on a free port.
async fn echo() -> (u16, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (mut read, mut write) = socket.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    (port, tasks)
}

async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

async fn echoed(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> bool {
    let mut answer = String::new();
    let exchange = async {
        stream.write_all(b"there and back").await?;
        stream.shutdown().await?;
        stream.read_to_string(&mut answer).await
    };
    soon("the echo", exchange).await.is_ok_and(|_| answer == "there and back")
}

async fn tcp(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap()
}

#[tokio::test]
async fn local_remote_and_dynamic_ports() {
    let (port, _echo) = echo().await;
    let node = Node::new();
    node.allow(&["localhost:*", "127.0.0.0/8:*"], &["localhost:*"]);
    let master = Master::start(node, &[]).await;

    let local = free_port().await;
    master.tell("forward", &[&format!("-L{local}:localhost:{port}")]).await.unwrap();
    assert!(echoed(tcp(local).await).await);

    let remote = master.tell("forward", &[&format!("-R0:127.0.0.1:{port}")]).await.unwrap();
    let remote: u16 = remote.parse().unwrap();
    assert!(echoed(tcp(remote).await).await);
    assert!(echoed(TcpStream::connect(("::1", remote)).await.unwrap()).await);
    master.tell("cancel", &[&format!("-R0:127.0.0.1:{port}")]).await.unwrap();
    // ssh does not wait for an answer to that.
    let closed = async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, remote)).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the end of the listener", closed).await;

    // `-R` without a destination makes the client a SOCKS proxy; `-D` is one of its own.
    let dynamic = free_port().await;
    master.tell("forward", &[&format!("-D{dynamic}")]).await.unwrap();
    let mut socks = tcp(dynamic).await;
    socks.write_all(&[5, 1, 0]).await.unwrap();
    let connect = [&[5, 1, 0, 1, 127, 0, 0, 1][..], &port.to_be_bytes()].concat();
    socks.write_all(&connect).await.unwrap();
    let mut answer = [0; 12];
    soon("the proxy's answer", socks.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer[..4], [5, 0, 5, 0]);
    assert!(echoed(socks).await);
}

#[tokio::test]
async fn what_is_not_allowed_is_not_forwarded() {
    let (port, _echo) = echo().await;
    let node = Node::new();
    node.allow(&["localhost:1"], &["localhost:1-1024"]);
    let master = Master::start(node, &[]).await;
    let local = free_port().await;
    master.tell("forward", &[&format!("-L{local}:localhost:{port}")]).await.unwrap();
    assert!(!echoed(tcp(local).await).await);
    let remote = master.tell("forward", &[&format!("-R0:127.0.0.1:{port}")]).await;
    assert!(remote.is_err_and(|why| why.contains("forwarding request failed")));
}

#[tokio::test]
async fn unix_sockets_both_ways() {
    let node = Node::new();
    let (here, there) = (node.file("here"), node.file("there"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    node.allow(&[&path(&here)], &[&path(&there)]);
    let listener = UnixListener::bind(&here).unwrap();
    let serve = async {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = socket.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        }
    };
    let test = async {
        let master = Master::start(node, &[]).await;
        let local = master.setup.path("local");
        let forward = format!("-L{}:{}", local.display(), here.display());
        master.tell("forward", &[&forward]).await.unwrap();
        assert!(echoed(UnixStream::connect(&local).await.unwrap()).await);

        let forward = format!("-R{}:{}", there.display(), here.display());
        master.tell("forward", &[&forward]).await.unwrap();
        assert!(echoed(UnixStream::connect(&there).await.unwrap()).await);
        master.tell("cancel", &[&forward]).await.unwrap();
        let gone = async {
            while there.exists() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the end of the socket", gone).await;
    };
    tokio::select! {
        () = serve => {}
        () = test => {}
    }
}

/// An agent with the setup's key `id` in it. Ends with its owner.
async fn agent(setup: &Setup) -> (Child, String) {
    let socket = setup.path("agent").to_str().unwrap().to_owned();
    let mut agent = Command::new("ssh-agent");
    agent.args(["-D", "-a", &socket]).stdout(Stdio::null()).kill_on_drop(true);
    let agent = agent.spawn().unwrap();
    exists(Path::new(&socket)).await;
    let mut add = Command::new("ssh-add");
    add.arg("-q").arg(setup.path("id")).env("SSH_AUTH_SOCK", &socket);
    assert!(finish(&mut add).await.status.success());
    (agent, socket)
}

#[tokio::test]
async fn the_client_s_agent_signs_for_programs_of_the_node() {
    let setup = Setup::new().await;
    setup.key_file("id", &setup.node.user("alice", &["forward:agent", "ssh"]));
    let (_agent, socket) = agent(&setup).await;
    let script = "ssh-add -L; stat -c %a $(dirname $SSH_AUTH_SOCK); echo $SSH_AUTH_SOCK";
    let mut ssh = setup.ssh(&["-A"]);
    let output = finish(ssh.arg(script).env("SSH_AUTH_SOCK", &socket)).await;
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    let [key, mode, path] = lines.as_slice() else { panic!("{lines:?}") };
    let expected = fs::read_to_string(setup.path("id.pub")).unwrap();
    let blob = |line: &str| line.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!((blob(key), *mode), (blob(&expected), "700"));
    let gone = async {
        while Path::new(path).parent().unwrap().exists() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the end of the agent's socket", gone).await;
    // It logs in to the node from the node: the key never was there.
    let mut hop = setup.ssh(&["-A"]);
    let options = "-F none -o BatchMode=yes -o StrictHostKeyChecking=no";
    let again = format!(
        "ssh {options} -o UserKnownHostsFile=/dev/null -p {} {}@127.0.0.1 echo from $$",
        setup.port, setup.node.account.name,
    );
    let output = finish(hop.arg(again).env("SSH_AUTH_SOCK", &socket)).await;
    assert!(text(&output.stdout).starts_with("from "), "{}", text(&output.stderr));
}

#[tokio::test]
async fn an_agent_is_forwarded_only_with_a_grant() {
    let setup = Setup::new().await;
    let (_agent, socket) = agent(&setup).await;
    let mut ssh = setup.ssh(&["-A"]);
    let output = finish(ssh.arg("echo \"<$SSH_AUTH_SOCK>\"").env("SSH_AUTH_SOCK", socket)).await;
    assert_eq!(text(&output.stdout), "<>\n");
    let refusals = setup.node.audit.refusals();
    assert_eq!(refusals, ["outside the identity's scopes: forward:agent"]);
}
