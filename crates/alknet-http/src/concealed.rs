//! The Concealed HTTP authentication scheme (RFC 9729) with Ed25519 keys: both ends.
//!
//! The client signs keying material of the TLS session, unasked, so a server that does not
//! know the key answers as if nothing had been sent. The key is its own key ID, and no
//! realm is used.

use alknet_core::{Connection, ConnectionError, NodeId, NodeIdentity};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use subtle::ConstantTimeEq as _;

use crate::exported::{covered, export};

/// The name of the scheme in an `Authorization` field.
pub(crate) const SCHEME: &str = "Concealed";

const LABEL: &[u8] = b"EXPORTER-HTTP-Concealed-Authentication";
const SIGNED: &[u8] = b"HTTP Concealed Authentication";
/// `ed25519` in TLS's registry of signature schemes.
const ED25519: u16 = 0x0807;
/// Of the 48 exported bytes the first 32 are signed, the others sent along.
const SIGNATURE_INPUT: usize = 32;

/// Why a `Concealed` credential is none. For the audit log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("malformed Concealed credential")]
    Malformed,
    #[error("Concealed credential of an unsupported kind")]
    Unsupported,
    #[error("no keying material on this connection")]
    NoExporter,
    #[error("Concealed credential of another TLS session")]
    OtherSession,
    #[error("Concealed credential without possession of the key")]
    NotPossessed,
}

/// Where a request goes, as it stands in its authority.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
}

/// The value of an `Authorization` field that proves `key` on this connection.
pub(crate) fn authorization(
    connection: &Connection,
    key: &NodeIdentity,
    target: Target<'_>,
) -> Result<String, ConnectionError> {
    let id = key.id();
    let exported: [u8; 48] = export(connection, LABEL, &context(&id, target))?;
    let (input, verification) = exported.split_at(SIGNATURE_INPUT);
    let public = BASE64URL.encode(id.as_bytes());
    let verification = BASE64URL.encode(verification);
    let proof = BASE64URL.encode(key.sign(&covered(SIGNED, input)));
    Ok(format!("{SCHEME} k={public}, a={public}, s={ED25519}, v={verification}, p={proof}"))
}

/// The key that the parameters of a `Concealed` credential prove on this connection.
pub(crate) fn verify(
    connection: &Connection,
    parameters: &str,
    target: Target<'_>,
) -> Result<NodeId, Invalid> {
    let sent = Parameters::parse(parameters)?;
    let exported: [u8; 48] = export(connection, LABEL, &context(&sent.key, target))
        .map_err(|_no_tls| Invalid::NoExporter)?;
    let (input, verification) = exported.split_at(SIGNATURE_INPUT);
    if !bool::from(verification.ct_eq(&sent.verification)) {
        return Err(Invalid::OtherSession);
    }
    let proven = sent.key.verify(&covered(SIGNED, input), &sent.proof);
    proven.map(|()| sent.key).map_err(|_| Invalid::NotPossessed)
}

/// The exporter's context (RFC 9729, section 3.1).
fn context(key: &NodeId, target: Target<'_>) -> Vec<u8> {
    let mut context = Vec::with_capacity(96 + target.host.len());
    context.extend_from_slice(&ED25519.to_be_bytes());
    push_prefixed(&mut context, key.as_bytes());
    push_prefixed(&mut context, key.as_bytes());
    push_prefixed(&mut context, b"https");
    push_prefixed(&mut context, target.host.as_bytes());
    context.extend_from_slice(&target.port.to_be_bytes());
    push_prefixed(&mut context, b"");
    context
}

/// A string after its length as the shortest variable-length integer of RFC 9000, section
/// 16. A host longer than that integer's two-byte form is cut: no such name exists, and
/// the two ends cut alike.
fn push_prefixed(out: &mut Vec<u8>, text: &[u8]) {
    const LONGEST: usize = 0x3fff;
    let text = text.get(..LONGEST).unwrap_or(text);
    let len = u16::try_from(text.len()).unwrap_or_default();
    match u8::try_from(len) {
        Ok(short) if short < 0x40 => out.push(short),
        _ => out.extend_from_slice(&(len | 0x4000).to_be_bytes()),
    }
    out.extend_from_slice(text);
}

struct Parameters {
    key: NodeId,
    verification: Vec<u8>,
    proof: Vec<u8>,
}

impl Parameters {
    /// Parses `k=…, a=…, s=…, v=…, p=…` (RFC 9729, section 4). Every parameter is needed
    /// once; others are not understood, and a realm would change what is signed.
    fn parse(text: &str) -> Result<Self, Invalid> {
        let [mut k, mut a, mut s, mut v, mut p] = [None; 5];
        for parameter in text.split(',') {
            let (name, value) = parameter.split_once('=').ok_or(Invalid::Malformed)?;
            let slot = match name.trim_matches([' ', '\t']) {
                "k" | "K" => &mut k,
                "a" | "A" => &mut a,
                "s" | "S" => &mut s,
                "v" | "V" => &mut v,
                "p" | "P" => &mut p,
                _ => return Err(Invalid::Unsupported),
            };
            if slot.replace(value.trim_matches([' ', '\t'])).is_some() {
                return Err(Invalid::Malformed);
            }
        }
        if s.ok_or(Invalid::Malformed)? != "2055" {
            return Err(Invalid::Unsupported);
        }
        let key = bytes(a)?;
        if bytes(k)? != key {
            return Err(Invalid::Unsupported);
        }
        let key: [u8; 32] = key.try_into().map_err(|_| Invalid::Malformed)?;
        Ok(Self { key: NodeId::from_bytes(key), verification: bytes(v)?, proof: bytes(p)? })
    }
}

fn bytes(value: Option<&str>) -> Result<Vec<u8>, Invalid> {
    BASE64URL.decode(value.ok_or(Invalid::Malformed)?).map_err(|_| Invalid::Malformed)
}

#[cfg(test)]
mod tests;
