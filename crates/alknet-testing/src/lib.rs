//! What the tests of the other crates share: an in-memory [`Connection`](alknet_core::Connection)
//! with streams, codes and datagrams, identities, and what every identity provider has to do.
//! Not published.

pub mod conformance;
pub mod identities;
pub mod memory;
