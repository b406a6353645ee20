//! Addresses that no pattern reaches by chance: those of the machine itself, of the link, of
//! cloud metadata, and whatever stands for one of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(words: [u16; 8], length: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = words;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length)
}

/// Reached only by a rule that names them.
const SPECIAL_V4: [Ipv4Net; 8] = [
    v4(0, 0, 0, 0, 8),          // "this host": Linux connects 0.0.0.0 to loopback
    v4(127, 0, 0, 0, 8),        // loopback
    v4(169, 254, 0, 0, 16),     // link-local; metadata of most clouds
    v4(192, 0, 0, 0, 24),       // IETF assignments; metadata of Oracle's cloud
    v4(100, 100, 100, 200, 32), // metadata of Alibaba's cloud
    v4(168, 63, 129, 16, 32),   // the host of Azure's machines
    v4(224, 0, 0, 0, 4),        // multicast
    v4(240, 0, 0, 0, 4),        // reserved, and broadcast
];

/// Reached only by a rule that names them.
const SPECIAL_V6: [Ipv6Net; 8] = [
    v6([0; 8], 128),                                // unspecified
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128),              // loopback
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),          // link-local
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),           // multicast
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), // metadata of Amazon's cloud
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),  // metadata of Google's cloud
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),       // NAT64 of the site's own making
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32),          // Teredo
];

/// Networks whose addresses hold an IPv4 address after the prefix.
const EMBEDDING: [Ipv6Net; 4] = [
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), // NAT64 (RFC 6052)
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96),         // IPv4-compatible (RFC 4291, deprecated)
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96),    // IPv4-translated (RFC 2765)
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),    // 6to4 (RFC 3056)
];

/// Not special, and not of the public Internet either.
const PRIVATE_V4: [Ipv4Net; 9] = [
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
];

/// All of the public Internet's IPv6 addresses, but for [`PRIVATE_V6`].
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// IETF assignments and documentation.
const PRIVATE_V6: [Ipv6Net; 3] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

/// The special network that an address (in canonical form) is of, if it is special.
pub(super) fn special(address: IpAddr) -> Option<IpNet> {
    match address {
        IpAddr::V4(address) => special_v4(address).map(IpNet::V4),
        IpAddr::V6(address) => special_v6(address).map(IpNet::V6),
    }
}

/// Whether an address (in canonical form) belongs to the public Internet.
pub(super) fn public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some((_, inner)) => public_v4(inner),
            None => {
                special_v6(address).is_none()
                    && GLOBAL_V6.contains(&address)
                    && !PRIVATE_V6.iter().any(|net| net.contains(&address))
            }
        },
    }
}

fn public_v4(address: Ipv4Addr) -> bool {
    special_v4(address).is_none() && !PRIVATE_V4.iter().any(|net| net.contains(&address))
}

fn special_v4(address: Ipv4Addr) -> Option<Ipv4Net> {
    SPECIAL_V4.into_iter().find(|net| net.contains(&address))
}

fn special_v6(address: Ipv6Addr) -> Option<Ipv6Net> {
    let plain = SPECIAL_V6.into_iter().find(|net| net.contains(&address));
    plain.or_else(|| {
        let (outer, inner) = embedded(address)?;
        let net = special_v4(inner)?;
        let shift = 96 - outer.prefix_len();
        let bits = outer.network().to_bits() | (u128::from(net.network().to_bits()) << shift);
        Ipv6Net::new(bits.into(), outer.prefix_len() + net.prefix_len()).ok()
    })
}

/// The IPv4 address inside an IPv6 address, and the network that says so.
fn embedded(address: Ipv6Addr) -> Option<(Ipv6Net, Ipv4Addr)> {
    let outer = EMBEDDING.into_iter().find(|net| net.contains(&address))?;
    let bits = address.to_bits() >> (96 - outer.prefix_len());
    let inner = u32::try_from(bits & u128::from(u32::MAX)).ok()?;
    Some((outer, inner.into()))
}
