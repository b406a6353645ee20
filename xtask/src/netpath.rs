//! A bad network on one machine: two network namespaces, and a path between them that takes
//! its time and loses packets.
//!
//! Each namespace has a TUN device, and threads of this process carry packets from one to the
//! other. No offloading is announced to the kernel, so that what is lost is one packet of at
//! most [`MTU`] bytes, as on a wire, and not the 64 KiB that TCP may give to a local device.
//! Both ways have the same conditions; what is lost follows from a seed.
//!
//! It takes a superuser, `/dev/net/tun`, and `ip`. The namespaces have no names: they go with
//! the process, however it ends.

mod link;
mod namespace;
mod tun;

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::Path,
    process,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use self::{
    link::{Link, Way},
    namespace::Namespace,
};
use crate::tools;

/// The largest packet, in bytes.
const MTU: u32 = 1500;
/// What of a machine's TCP its namespaces may use; those not listed are for the first alone.
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// What befalls packets, in either direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conditions {
    /// There and back.
    pub(crate) rtt: Duration,
    /// Of a million packets, how many are lost.
    pub(crate) loss: u32,
    /// Bytes in a second; `None`: as fast as it goes.
    pub(crate) rate: Option<u64>,
    /// How long a packet may wait for those before it where there is a rate; the next is
    /// dropped.
    pub(crate) queue: Duration,
    pub(crate) seed: u64,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            rtt: Duration::from_millis(50),
            loss: 0,
            rate: None,
            queue: Duration::from_millis(50),
            seed: 1,
        }
    }
}

/// The end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    /// The address of this end.
    pub(crate) fn address(self) -> Ipv4Addr {
        match self {
            Self::Client => Ipv4Addr::new(10, 77, 0, 1),
            Self::Server => Ipv4Addr::new(10, 77, 0, 2),
        }
    }
}

/// A path between two namespaces; both go when it is dropped and nothing runs in them any
/// more.
pub(crate) struct NetPath {
    client: Namespace,
    server: Namespace,
    link: Arc<Link>,
    carriers: Vec<thread::JoinHandle<()>>,
}

impl NetPath {
    pub(crate) fn start(conditions: Conditions) -> Result<Self> {
        let end = |side: Side| -> Result<(Namespace, Arc<File>)> {
            let namespace = Namespace::new()?;
            let device = namespace.run(|| tun::open(side.address(), MTU))??;
            Ok((namespace, Arc::new(device)))
        };
        let (client, near) = end(Side::Client)?;
        let (server, far) = end(Side::Server)?;
        let link = Arc::new(Link::new(conditions));
        let mut carriers = Vec::new();
        for (way, from, to) in [(Way::Up, &near, &far), (Way::Down, &far, &near)] {
            carriers.extend(link::carry(&link, way, from.clone(), to.clone()));
        }
        Ok(Self { client, server, link, carriers })
    }

    /// Loses this many of a million packets from now on.
    pub(crate) fn lose(&self, loss: u32) {
        self.link.lose(loss);
    }

    /// Runs this at one end: what it connects, listens or starts is there.
    pub(crate) fn at<T: Send>(&self, side: Side, run: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace(side).run(run)
    }

    /// Uses this for the TCP of what starts at either end from now on; a namespace begins with
    /// what the machine has chosen for itself. Where it is reserved for the machine's own
    /// namespace it is allowed to all of them first.
    pub(crate) fn tcp_congestion_control(&self, name: &str) -> Result<()> {
        let allowed = fs::read_to_string(ALLOWED).context(ALLOWED)?;
        if !allowed.split_whitespace().any(|allowed| allowed == name) {
            fs::write(ALLOWED, format!("{} {name}", allowed.trim()))
                .with_context(|| format!("the kernel has no TCP congestion control {name}"))?;
        }
        for side in [Side::Client, Side::Server] {
            // The file is of the namespace of whoever writes.
            let file = "/proc/sys/net/ipv4/tcp_congestion_control";
            self.at(side, || fs::write(file, name))?.context(file)?;
        }
        Ok(())
    }

    fn namespace(&self, side: Side) -> &Namespace {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }
}

impl Drop for NetPath {
    fn drop(&mut self) {
        // The devices' ends are what the carriers wait for.
        let removed = [Side::Client, Side::Server]
            .map(|side| self.at(side, tun::remove).and_then(|removed| removed).is_ok());
        if removed == [true; 2] {
            for carrier in self.carriers.drain(..) {
                let _ = carrier.join();
            }
        }
    }
}

/// Keeps a path up until this process is ended, and tells how to get to its ends.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let conditions = parse(args)?;
    tools::need(root, tools::NETPATH)?;
    let path = NetPath::start(conditions)?;
    println!("{conditions:?}");
    for side in [Side::Client, Side::Server] {
        println!(
            "{side:?}, {}: nsenter --net=/proc/{}/fd/{} COMMAND",
            side.address(),
            process::id(),
            path.namespace(side).descriptor(),
        );
    }
    loop {
        thread::park();
    }
}

/// `[RTT in ms] [loss in %] [Mbit/s]`
fn parse(args: &[String]) -> Result<Conditions> {
    let mut conditions = Conditions::default();
    let [rtt, loss, rate] = match args {
        [] => [None; 3],
        [rtt] => [Some(rtt), None, None],
        [rtt, loss] => [Some(rtt), Some(loss), None],
        [rtt, loss, rate] => [Some(rtt), Some(loss), Some(rate)],
        _ => bail!("`cargo xtask netpath [RTT in ms] [LOSS in %] [RATE in Mbit/s]`"),
    };
    if let Some(rtt) = rtt {
        conditions.rtt = Duration::from_secs_f64(number(rtt)? / 1e3);
    }
    if let Some(loss) = loss {
        conditions.loss = whole(number(loss)? * 1e4)?;
    }
    if let Some(rate) = rate {
        conditions.rate = Some(u64::from(whole(number(rate)? * 1e3)?) * 125);
    }
    Ok(conditions)
}

fn number(text: &str) -> Result<f64> {
    let number: f64 = text.parse().with_context(|| format!("{text:?} is not a number"))?;
    if !(0.0..1e6).contains(&number) {
        bail!("{text} is out of range");
    }
    Ok(number)
}

fn whole(number: f64) -> Result<u32> {
    format!("{number:.0}").parse().with_context(|| format!("{number} is out of range"))
}

#[cfg(test)]
mod tests;
