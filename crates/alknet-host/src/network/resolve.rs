//! Names to addresses, once for each thing asked for.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use alknet_core::{BoxFuture, Identity};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::host::Host;

/// The most addresses of a name that are looked at.
const MAX_ADDRESSES: usize = 16;
/// Names that are looked up at a time: each takes a thread, and there are others who need one.
const MAX_LOOKUPS: usize = 64;
/// Of these, what one identity may have: a name whose servers do not answer takes its thread
/// long after whoever asked has given up.
const MAX_SHARE: usize = 8;

/// Finds out the addresses of a name.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a name (ASCII, lower case, no dot at the end), the best first. The
    /// share is to be held until nothing of the look-up is left, also when the future is
    /// dropped before.
    fn resolve<'a>(&'a self, name: &'a str, share: Share)
    -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// One of the look-ups that an identity may have at a time; dropping it gives it back.
#[derive(Debug)]
pub struct Share {
    _permit: OwnedSemaphorePermit,
}

/// The look-ups of all identities, by their ids: of those who have any.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<String, Weak<Semaphore>>>);

impl Shares {
    /// Waits for one more look-up of this identity. Cancel safe.
    pub(super) async fn take(&self, caller: &Identity) -> io::Result<Share> {
        let permit = self.of(&caller.id).acquire_owned().await.map_err(io::Error::other)?;
        Ok(Share { _permit: permit })
    }

    /// An unchecked look-up's, which is nobody's in particular.
    pub(super) async fn of_nobody() -> io::Result<Share> {
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.map_err(io::Error::other)?;
        Ok(Share { _permit: permit })
    }

    fn of(&self, id: &str) -> Arc<Semaphore> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(id).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(MAX_SHARE));
        shares.insert(id.to_owned(), Arc::downgrade(&share));
        share
    }
}

/// Asks the system as other programs do: the hosts file, DNS, and what else is configured.
#[derive(Debug, Clone)]
pub struct SystemResolver(Arc<Semaphore>);

impl Default for SystemResolver {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS)))
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
        share: Share,
    ) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let permit = self.0.clone().acquire_owned().await.map_err(io::Error::other)?;
            let name = name.to_owned();
            // The thread cannot be stopped, so it keeps both until it is done.
            let look = move || -> io::Result<Vec<IpAddr>> {
                let _held = (permit, share);
                Ok((name.as_str(), 0).to_socket_addrs()?.map(|address| address.ip()).collect())
            };
            tokio::task::spawn_blocking(look).await.map_err(io::Error::other)?
        })
    }
}

/// The addresses that a host stands for, in canonical form.
pub(super) async fn addresses(
    resolver: &dyn Resolve,
    host: &Host,
    share: impl Future<Output = io::Result<Share>>,
) -> io::Result<Vec<IpAddr>> {
    let name = match host {
        Host::Address(address) => return Ok(vec![*address]),
        Host::Any => return Ok(vec![Ipv6Addr::UNSPECIFIED.into()]),
        // No resolver is asked who this machine is (RFC 6761, section 6.3).
        Host::Name(_) if host.is_localhost() => {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        Host::Name(name) => name,
    };
    let mut addresses = Vec::new();
    for address in resolver.resolve(name, share.await?).await? {
        let address = address.to_canonical();
        if !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "no address")),
        false => Ok(addresses),
    }
}

impl fmt::Debug for dyn Resolve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolve")
    }
}
