//! What both ends sign over the TLS session they share.
//!
//! The exporter (RFC 8446, section 7.5) differs between any two sessions, so a signature
//! over it says nothing on another connection: whoever sits in between has two sessions
//! and can show neither side the other's signature.

use alknet_core::{Connection, ConnectionError};

/// The bytes under a signature, separated from every other use of the key as TLS 1.3 does
/// for CertificateVerify (RFC 8446, section 4.4.3).
pub(crate) fn covered(context: &[u8], input: &[u8]) -> Vec<u8> {
    let mut message = vec![0x20; 64];
    message.extend_from_slice(context);
    message.push(0);
    message.extend_from_slice(input);
    message
}

/// `N` bytes of keying material of the session.
pub(crate) fn export<const N: usize>(
    connection: &Connection,
    label: &[u8],
    context: &[u8],
) -> Result<[u8; N], ConnectionError> {
    let mut out = [0; N];
    connection.export_keying_material(&mut out, label, context)?;
    Ok(out)
}
