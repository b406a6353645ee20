//! HTTP/3 and WebTransport over in-memory connections, and over QUIC.

#[cfg(test)]
mod limits;
#[cfg(test)]
mod loopback;
#[cfg(test)]
mod malformed;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod sessions;
