//! A TUN device of the namespace that the caller is in.

use std::{
    fs::{File, OpenOptions},
    net::Ipv4Addr,
    os::fd::AsRawFd as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::libc;

use crate::sh::Cmd;

const NAME: &str = "path";
const DEVICE: &str = "/dev/net/tun";
/// Packets that the kernel keeps until they are fetched: more than a path's own queue, which
/// is what decides.
const KERNEL_QUEUE: u32 = 20_000;

/// The kernel's `struct ifreq`, as far as TUN devices use it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

mod ioctl {
    use super::Request;

    nix::ioctl_write_ptr_bad!(
        set_interface,
        nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()),
        Request
    );
}

/// A device that is up, with an address of a network of 24 bits. Each read is a packet, and
/// so is each write.
pub(super) fn open(address: Ipv4Addr, mtu: u32) -> Result<File> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE).context(DEVICE)?;
    attach(&device).context("a TUN device could not be made")?;
    ip(&["address", "add", &format!("{address}/24"), "dev", NAME])?;
    let (mtu, queue) = (mtu.to_string(), KERNEL_QUEUE.to_string());
    ip(&["link", "set", "dev", NAME, "mtu", &mtu, "txqueuelen", &queue, "up"])?;
    ip(&["link", "set", "dev", "lo", "up"])?;
    Ok(device)
}

/// Ends the device; reads from it fail.
pub(super) fn remove() -> Result<()> {
    ip(&["link", "delete", "dev", NAME])
}

fn attach(device: &File) -> Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(NAME.bytes()) {
        *to = from;
    }
    let flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI)?;
    let request = Request { name, flags, rest: [0; 22] };
    // SAFETY: the request is as large as the kernel's `struct ifreq` and lives for the call;
    // the kernel reads the name, which ends with a zero, and the flags.
    #[expect(unsafe_code, reason = "an ioctl takes a pointer")]
    unsafe {
        ioctl::set_interface(device.as_raw_fd(), &raw const request)?;
    }
    Ok(())
}

fn ip(args: &[&str]) -> Result<()> {
    Cmd::new(Path::new("/"), "ip").args(args).read().map(drop)
}
