//! A machine of its own for a client: a network namespace behind a bridge, whose cable can
//! be pulled. It needs root.

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use crate::process::{output, text};

/// A namespace and the way to it.
pub(super) struct Link {
    name: String,
    /// The third byte of its addresses.
    net: u8,
    /// The last byte of the client's address.
    host: u8,
}

/// How the way is cut.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cut {
    /// A switch in between has lost its port: nobody notices.
    Silent,
    /// The client's own cable is out.
    Down,
}

#[track_caller]
fn ip(args: &str) {
    let done = output(Command::new("ip").args(args.split(' ')));
    let why = "these tests make network namespaces: they have to run as root, with iproute2";
    assert!(done.status.success(), "ip {args}: {}\n{why}", text(&done));
}

impl Link {
    #[track_caller]
    pub(super) fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let name = format!("as{pid:x}{number:x}");
        let net = u8::try_from((pid + u32::from(number)) % 250).unwrap();
        let link = Self { name, net, host: 2 };
        let Self { name, .. } = &link;
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name}b type bridge"));
        ip(&format!("addr add {}/24 dev {name}b", link.node()));
        ip(&format!("link add {name}v type veth peer name eth0 netns {name}"));
        ip(&format!("link set {name}v master {name}b"));
        ip(&format!("link set {name}v up"));
        ip(&format!("link set {name}b up"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} addr add {}/24 dev eth0", link.client()));
        link
    }

    /// Where a node listens.
    pub(super) fn node(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.net, 1)
    }

    /// The client's address.
    pub(super) fn client(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.net, self.host)
    }

    /// The command, on the client's machine.
    pub(super) fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.name]).arg(command.get_program());
        inside.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    pub(super) fn cut(&self, how: Cut) {
        match how {
            Cut::Silent => ip(&format!("link set {0}v nomaster", self.name)),
            Cut::Down => ip(&format!("-n {} link set eth0 down", self.name)),
        }
    }

    pub(super) fn restore(&self, how: Cut) {
        match how {
            Cut::Silent => ip(&format!("link set {0}v master {0}b", self.name)),
            Cut::Down => ip(&format!("-n {} link set eth0 up", self.name)),
        }
    }

    /// Gives the client another address, and takes the one that it had.
    pub(super) fn renumber(&mut self) {
        let (old, name) = (self.client(), self.name.clone());
        self.host += 1;
        ip(&format!("-n {name} addr add {}/24 dev eth0", self.client()));
        ip(&format!("-n {name} addr del {old}/24 dev eth0"));
        // The next address of the same network may have gone with the first.
        let again = format!("-n {name} addr replace {}/24 dev eth0", self.client());
        ip(&again);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let name = &self.name;
        // The namespace itself may last as long as a process in it.
        for it in
            [format!("link del {name}v"), format!("link del {name}b"), format!("netns del {name}")]
        {
            let _ = Command::new("ip").args(it.split(' ')).status();
        }
    }
}
