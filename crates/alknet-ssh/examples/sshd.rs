//! The SSH handler on a listener of one's own: `sshd KEY.pub…` serves the account that it
//! runs as, on a free TCP port of the loopback interface, to whoever has one of the keys.
//! It prints the port, and the line of `known_hosts` by which OpenSSH trusts it.
#![allow(clippy::print_stdout, reason = "the output is what the example is for")]

use std::{env, error::Error, fs, net::Ipv4Addr, sync::Arc};

use alknet_core::{
    Access, Alpn, Audit, AuthContext, Connection, Dispatcher, HandlerRegistry, Limits,
    NodeIdentity, SingleStream, Stream, TransportKind,
};
use alknet_host::{
    Account, Accounts,
    network::{Policy, Settings},
};
use alknet_ssh::{
    HostKey, KeyExchange, RevokedKeys, SshAdapter, SshConfig, SshLimits, UserKey, known_hosts_line,
};
use alknet_testing::identities::{Identities, identity};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keys = Identities::new();
    for path in env::args().skip(1) {
        let key = UserKey::parse(&fs::read_to_string(path)?)?;
        keys.add_key(key.fingerprint(), identity(key.comment(), &["ssh"]));
    }
    let node = NodeIdentity::from_seed(&[1; 32])?;
    let ssh = SshAdapter::new(SshConfig {
        host_key: HostKey::from_seed(&[2; 32], &node)?,
        identities: Arc::new(keys),
        audit: Audit::to_log(),
        accounts: Accounts::own(Account::current()?),
        limits: SshLimits::default(),
        key_exchange: KeyExchange::default(),
        accept_env: Vec::new(),
        set_env: Vec::new(),
        banner: None,
        revoked_keys: RevokedKeys::default(),
        recorder: None,
        services: Vec::new(),
        network: Policy::new(Settings::default()),
    });
    let mut registry = HandlerRegistry::new();
    registry.register(ssh, Access::Protocol)?;
    let dispatcher = Dispatcher::new(registry, Limits::default(), Audit::to_log());

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?.port());
    println!("{}", known_hosts_line("*", node.id())?);
    loop {
        let (tcp, peer) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let auth = AuthContext::anonymous(Alpn::service("ssh")?, TransportKind::Tls, Some(peer));
        let stream = SingleStream::accepted(TransportKind::Tls, Stream::from_bistream(tcp));
        dispatcher.admit(auth)?.start(Connection::new(stream.with_remote_addr(Some(peer))));
    }
}
