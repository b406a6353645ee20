//! Calls over `alknet/call` beside gRPC, JSON-RPC and JSON over HTTP, in one run.
//!
//! Without an argument it is the client: it starts itself as the server, measures every way
//! in turn, and prints a section of Markdown. `call-bench WAY…` measures those alone.

mod measure;
mod note;
mod report;
mod tls;
mod ways;

use std::{env, process::Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::ways::{Servers, WAYS};

/// What makes this program the server.
const SERVE: &str = "serve";

#[tokio::main]
async fn main() -> Result<()> {
    // For whoever asks for the process's own; the choice is the node's.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.install_default().map_err(|_| anyhow!("there is a TLS provider already"))?;
    let args: Vec<String> = env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(SERVE) => serve().await,
        _ => measure(&args).await,
    }
}

/// Serves every way until the standard input ends.
async fn serve() -> Result<()> {
    let (servers, mut tasks) = ways::serve().await?;
    println!("{}", serde_json::to_string(&servers)?);
    let (mut input, mut nothing) = (tokio::io::stdin(), Vec::new());
    tokio::select! {
        read = input.read_to_end(&mut nothing) => drop(read?),
        Some(ended) = tasks.join_next() => ended.context("a server ended")??,
    }
    Ok(())
}

async fn measure(named: &[String]) -> Result<()> {
    for name in named {
        ensure!(WAYS.contains(&name.as_str()), "{name} is not one of {}", WAYS.join(", "));
    }
    let (servers, mut server) = start().await?;
    let wanted = |name: &&str| named.is_empty() || named.iter().any(|it| it == name);
    let mut ways = Vec::new();
    for name in WAYS.into_iter().filter(wanted) {
        let caller = ways::connect(name, &servers).await.with_context(|| name.to_owned())?;
        ways.push((name, caller));
    }
    let samples = measure::all(&ways).await?;
    print!("{}", report::markdown(&samples));
    drop(server.stdin.take());
    server.wait().await?;
    Ok(())
}

/// This program as the server, in a process of its own.
async fn start() -> Result<(Servers, Child)> {
    let mut server = Command::new(env::current_exe()?)
        .arg(SERVE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = server.stdout.take().context("the server has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).await?;
    Ok((serde_json::from_str(&line).context("the server did not start")?, server))
}
