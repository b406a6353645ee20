//! What the tests of the other crates share: an in-memory [`Connection`](alknet_core::Connection)
//! with streams, codes and datagrams, and identities. Not published.

pub mod identities;
pub mod memory;
