//! The SSH handler behind as much of sshd's command line and configuration as OpenSSH's
//! regression tests use: `cargo xtask conformance` runs the tests against it. What it does
//! not know it refuses, as sshd does, so that nothing passes for want of a setting.
//!
//! `regress_sshd -i -f FILE` serves standard input and output; without `-i` it serves a port
//! in the background.
#![allow(clippy::print_stderr, reason = "what is wrong with the configuration is for whoever asks")]

mod config;
mod keys;
mod subsystem;

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alknet_core::{
    Access, Alpn, Audit, AuditEvent, AuditSink, AuthContext, Connection, Dispatcher,
    HandlerRegistry, Limits, NodeIdentity, SingleStream, Stream, TransportKind,
};
use alknet_host::{Account, Accounts, network::Policy};
use alknet_ssh::{HostKey, RevokedKeys, SshAdapter, SshConfig, SshLimits};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use self::{config::Config, subsystem::Subsystem};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What sshd ends with when something is wrong.
const FAILED: u8 = 255;

/// How it is started.
#[derive(Debug, Default)]
struct Options {
    config: PathBuf,
    log: Option<PathBuf>,
    /// Serve one connection on standard input and output.
    inetd: bool,
    /// Look at the configuration and no more.
    test: bool,
    /// Print what was understood of it.
    print: bool,
    /// Serve the port in this process.
    foreground: bool,
    settings: Vec<String>,
}

fn main() -> ExitCode {
    match Options::parse(env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(FAILED)
        }
    }
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            let mut chars = arg.strip_prefix('-').ok_or("no arguments are taken")?.chars();
            while let Some(flag) = chars.next() {
                let mut value = || match chars.as_str() {
                    "" => args.next().ok_or_else(|| format!("-{flag} takes a value")),
                    rest => Ok(rest.to_owned()),
                };
                match flag {
                    'i' => options.inetd = true,
                    't' => options.test = true,
                    'T' => (options.test, options.print) = (true, true),
                    'D' => options.foreground = true,
                    'f' => options.config = value()?.into(),
                    'E' => options.log = Some(value()?.into()),
                    'o' => options.settings.push(value()?.replacen('=', " ", 1)),
                    'p' => options.settings.push(format!("Port {}", value()?)),
                    flag => return Err(format!("-{flag} is not known").into()),
                }
                if "fEop".contains(flag) {
                    break;
                }
            }
        }
        Ok(options)
    }
}

/// Whether anybody has logged in.
static LOGGED_IN: AtomicBool = AtomicBool::new(false);

/// What `-E` names: refusals and their reasons are there.
static LOG: OnceLock<PathBuf> = OnceLock::new();

struct Logins;

impl AuditSink for Logins {
    fn record(&self, event: AuditEvent) {
        if let Some(mut log) =
            LOG.get().and_then(|path| File::options().append(true).open(path).ok())
        {
            let _ = writeln!(log, "{event:?}");
        }
        if event.event == AuditEvent::AUTHENTICATED {
            LOGGED_IN.store(true, Ordering::SeqCst);
        }
    }
}

/// Whether all went as the client wished.
fn run(options: &Options) -> Result<bool> {
    let config = Config::read(&options.config, &options.settings)?;
    if options.print {
        let (bytes, seconds) = config.rekey;
        writeln!(std::io::stdout(), "rekeylimit {bytes} {seconds}")?;
    }
    if options.test {
        return Ok(true);
    }
    if !options.inetd && !options.foreground {
        return background(options);
    }
    if let Some(log) = &options.log {
        LOG.get_or_init(|| log.clone());
    }
    let runtime = Runtime::new()?;
    let ended = runtime.block_on(async {
        let dispatcher = dispatcher(&config)?;
        if options.inetd { inetd(&dispatcher).await } else { listen(&config, &dispatcher).await }?;
        Ok(!options.inetd || LOGGED_IN.load(Ordering::SeqCst))
    });
    // Reading standard input cannot be called off.
    runtime.shutdown_background();
    ended
}

fn background(options: &Options) -> Result<bool> {
    let output = match &options.log {
        Some(log) => Stdio::from(File::options().append(true).create(true).open(log)?),
        None => Stdio::null(),
    };
    let mut command = Command::new(env::current_exe()?);
    command.arg("-D").args(env::args().skip(1)).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output).spawn()?;
    Ok(true)
}

fn dispatcher(config: &Config) -> Result<Dispatcher> {
    let account = Account::current()?;
    let node = NodeIdentity::from_seed(&[1; 32])?;
    let mut limits = SshLimits::default();
    limits.login_timeout = config.login_timeout;
    if let (bytes @ 1.., _) = config.rekey {
        limits.rekey_bytes = usize::try_from(bytes)?;
    }
    if let (_, seconds @ 1..) = config.rekey {
        limits.rekey_time = Duration::from_secs(seconds);
    }
    let services = config.subsystems.iter();
    let services = services.map(|(name, line)| Subsystem::of(name, &config.subsystem(line)));
    let ssh = SshAdapter::new(SshConfig {
        host_key: HostKey::from_seed(&config.host_key()?, &node)?,
        identities: Arc::new(keys::identities(config, &account.name)?),
        audit: Audit::new(Logins),
        accounts: Accounts::own(account),
        limits,
        key_exchange: config.key_exchange,
        accept_env: config.accept_env.clone(),
        set_env: config.set_env.clone(),
        banner: config.banner.clone(),
        revoked_keys: RevokedKeys::new(config.revoked_keys.clone()),
        services: services.collect(),
        network: Policy::new(config.network()?),
        recorder: None,
    });
    let mut registry = HandlerRegistry::new();
    registry.register(ssh, Access::Protocol)?;
    Ok(Dispatcher::new(registry, Limits::default(), Audit::to_log()))
}

async fn inetd(dispatcher: &Dispatcher) -> Result<()> {
    let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    let auth = AuthContext::anonymous(Alpn::service("ssh")?, TransportKind::Tls, None);
    let session = dispatcher.admit(auth)?;
    let connection = SingleStream::accepted(TransportKind::Tls, Stream::from_bistream(stream));
    Ok(session.start(Connection::new(connection)).await?)
}

async fn listen(config: &Config, dispatcher: &Dispatcher) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port)).await?;
    let (mut stop, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    if let Some(path) = &config.pid_file {
        fs::write(path, format!("{}\n", std::process::id()))?;
    }
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (tcp, peer): (_, SocketAddr) = accepted?;
                tcp.set_nodelay(true)?;
                let alpn = Alpn::service("ssh")?;
                let auth = AuthContext::anonymous(alpn, TransportKind::Tls, Some(peer));
                let stream = SingleStream::accepted(TransportKind::Tls, Stream::from_bistream(tcp));
                let connection = Connection::new(stream.with_remote_addr(Some(peer)));
                drop(dispatcher.admit(auth)?.start(connection));
            }
            _ = hangup.recv() => {}
            _ = stop.recv() => break,
        }
    }
    if let Some(path) = &config.pid_file {
        fs::remove_file(path)?;
    }
    Ok(())
}
