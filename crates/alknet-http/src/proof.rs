//! How a node proves itself to a native client inside HTTPS.
//!
//! The client accepts any X.509 certificate there, so that its handshake looks like a
//! browser's. The node's identity follows on the answer that lets the client in: the header
//! field `alknet-node-proof: <node key, 64 hex digits>.<signature, base64url>`, a signature
//! by the node's key over keying material of the session. Only callers that proved a key of
//! their own see it, so a prober learns nothing.

use alknet_core::{Connection, ConnectionError, NodeId, NodeIdentity, Pin, WrongIdentity};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::HeaderName;

use crate::exported::{covered, export};

/// The field's name.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("alknet-node-proof");

const LABEL: &[u8] = b"EXPORTER-alknet-node-proof";
const SIGNED: &[u8] = b"alknet node proof v1";

/// Why a node's proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The answer carries none.
    #[error("the answer carries no proof of the node's identity")]
    Missing,
    /// The proof cannot be read.
    #[error("the proof of the node's identity is malformed")]
    Malformed,
    /// The key was not used in this session: somebody may be in between.
    #[error("the proof of the node's identity is not for this TLS session")]
    Invalid,
    /// It is another node than the pinned one.
    #[error(transparent)]
    OtherNode(#[from] WrongIdentity),
}

/// The field's value for this connection.
pub(crate) fn prove(
    connection: &Connection,
    node: &NodeIdentity,
) -> Result<String, ConnectionError> {
    let id = node.id();
    let exported: [u8; 32] = export(connection, LABEL, id.as_bytes())?;
    let signature = BASE64URL.encode(node.sign(&covered(SIGNED, &exported)));
    Ok(format!("{}.{signature}", hex::encode(id.as_bytes())))
}

/// The node that the field proves, if it is the expected one.
pub(crate) fn check(connection: &Connection, value: &str, pin: Pin) -> Result<NodeId, ProofError> {
    let (id, signature) = value.split_once('.').ok_or(ProofError::Malformed)?;
    let mut key = [0; 32];
    hex::decode_to_slice(id, &mut key).map_err(|_| ProofError::Malformed)?;
    let signature = BASE64URL.decode(signature).map_err(|_| ProofError::Malformed)?;
    let found = NodeId::from_bytes(key);
    let exported: [u8; 32] =
        export(connection, LABEL, found.as_bytes()).map_err(|_| ProofError::Invalid)?;
    found.verify(&covered(SIGNED, &exported), &signature).map_err(|_| ProofError::Invalid)?;
    Ok(pin.check(found)?)
}

#[cfg(test)]
mod tests {
    use alknet_core::TransportKind;
    use alknet_testing::memory;

    use super::*;

    fn node(seed: u8) -> NodeIdentity {
        NodeIdentity::from_seed(&[seed; 32]).unwrap()
    }

    #[test]
    fn a_node_proves_itself_to_whoever_pins_it_or_learns_it() {
        let (client, server) = memory::pair_of_kind(TransportKind::Tls);
        let value = prove(&server, &node(1)).unwrap();
        let id = node(1).id();
        assert_eq!(check(&client, &value, Pin::Expect(id)), Ok(id));
        assert_eq!(check(&client, &value, Pin::Learn), Ok(id));
    }

    #[test]
    fn another_node_is_named() {
        let (client, server) = memory::pair_of_kind(TransportKind::Tls);
        let value = prove(&server, &node(2)).unwrap();
        let (expected, actual) = (node(1).id(), node(2).id());
        assert_eq!(
            check(&client, &value, Pin::Expect(expected)),
            Err(ProofError::OtherNode(WrongIdentity { expected, actual }))
        );
    }

    #[test]
    fn a_proof_is_worth_nothing_on_another_connection() {
        let (_client, server) = memory::pair_of_kind(TransportKind::Tls);
        let (other, _server) = memory::pair_of_kind(TransportKind::Tls);
        let value = prove(&server, &node(1)).unwrap();
        assert_eq!(check(&other, &value, Pin::Learn), Err(ProofError::Invalid));
    }

    #[test]
    fn a_claimed_key_must_have_signed() {
        let (client, server) = memory::pair_of_kind(TransportKind::Tls);
        let value = prove(&server, &node(1)).unwrap();
        let (_, signature) = value.split_once('.').unwrap();
        let claimed = format!("{}.{signature}", hex::encode(node(2).id().as_bytes()));
        assert_eq!(check(&client, &claimed, Pin::Learn), Err(ProofError::Invalid));
        for bad in ["", ".", "00.AA", "zz.zz"] {
            assert!(check(&client, bad, Pin::Learn).is_err(), "{bad}");
        }
    }
}
