use alknet_core::TransportKind;
use alknet_testing::memory;

use super::*;

const TARGET: Target<'static> = Target { host: "example.com", port: 443 };

fn key(seed: u8) -> NodeIdentity {
    NodeIdentity::from_seed(&[seed; 32]).unwrap()
}

fn parameters(header: &str) -> &str {
    header.strip_prefix("Concealed ").unwrap()
}

/// The structure of RFC 9729, section 3.1, spelt out by hand.
#[test]
fn the_context_is_laid_out_as_published() {
    let id = NodeId::from_bytes([0xaa; 32]);
    let mut expected = vec![0x08, 0x07];
    expected.push(32);
    expected.extend([0xaa; 32]);
    expected.push(32);
    expected.extend([0xaa; 32]);
    expected.extend(b"\x05https");
    expected.extend(b"\x0bexample.com");
    expected.extend([0x01, 0xbb]);
    expected.push(0);
    assert_eq!(context(&id, TARGET), expected);
}

#[test]
fn a_long_host_has_a_two_byte_length() {
    let mut out = Vec::new();
    push_prefixed(&mut out, &[b'a'; 64]);
    assert_eq!(out.get(..3), Some(&[0x40, 0x40, b'a'][..]));
    out.clear();
    push_prefixed(&mut out, &[b'a'; 63]);
    assert_eq!(out.get(..2), Some(&[0x3f, b'a'][..]));
}

/// RFC 9729, section 3.3: the published example, with the context string of the text (the
/// hexadecimal digits printed there are those of the scheme's older name).
#[test]
fn the_signed_bytes_are_as_published() {
    let mut expected = vec![b' '; 64];
    expected.extend(b"HTTP Concealed Authentication\0");
    expected.extend([1; 32]);
    assert_eq!(covered(SIGNED, &[1; 32]), expected);
}

/// RFC 9729, section 5.
#[test]
fn the_published_header_field_parses() {
    let sent = Parameters::parse(
        "k=YmFzZW1lbnQ, a=VGhpcyBpcyBh-HB1YmxpYyBrZXkgaW4gdXNl_GhlcmU, s=2055, \
         v=dmVyaWZpY2F0aW9u_zE2Qg, \
         p=SW5zZXJ0_HNpZ25hdHVyZSBvZiBub25jZSBoZXJlIHdoaWNoIHRha2VzIDUxMiBiaXRz-GZvciBFZDI1NTE5IQ",
    );
    // A key ID other than the key itself is none of ours, and that is all that is wrong.
    assert_eq!(sent.err(), Some(Invalid::Unsupported));
}

#[test]
fn the_holder_of_a_key_is_believed() {
    let (client, server) = memory::pair_of_kind(TransportKind::Tls);
    let header = authorization(&client, &key(1), TARGET).unwrap();
    assert_eq!(verify(&server, parameters(&header), TARGET), Ok(key(1).id()));
}

#[test]
fn a_header_is_worth_nothing_on_another_connection() {
    let (client, _server) = memory::pair_of_kind(TransportKind::Tls);
    let (_client, other) = memory::pair_of_kind(TransportKind::Tls);
    let header = authorization(&client, &key(1), TARGET).unwrap();
    assert_eq!(verify(&other, parameters(&header), TARGET), Err(Invalid::OtherSession));
}

#[test]
fn a_header_is_worth_nothing_for_another_host_or_port() {
    let (client, server) = memory::pair_of_kind(TransportKind::Tls);
    let header = authorization(&client, &key(1), TARGET).unwrap();
    for target in
        [Target { host: "example.org", ..TARGET }, Target { host: "example.com", port: 444 }]
    {
        assert_eq!(verify(&server, parameters(&header), target), Err(Invalid::OtherSession));
    }
}

/// The thief knows the public key and the protocol, and signs with what they have.
#[test]
fn a_stolen_public_key_is_not_enough() {
    let (client, server) = memory::pair_of_kind(TransportKind::Tls);
    let exported: [u8; 48] = export(&client, LABEL, &context(&key(1).id(), TARGET)).unwrap();
    let (input, verification) = exported.split_at(SIGNATURE_INPUT);
    let public = BASE64URL.encode(key(1).id().as_bytes());
    let forged = format!(
        "k={public}, a={public}, s=2055, v={}, p={}",
        BASE64URL.encode(verification),
        BASE64URL.encode(key(2).sign(&covered(SIGNED, input))),
    );
    assert_eq!(verify(&server, &forged, TARGET), Err(Invalid::NotPossessed));
}

#[test]
fn malformed_parameters_are_no_credential() {
    let (client, server) = memory::pair_of_kind(TransportKind::Tls);
    let header = authorization(&client, &key(1), TARGET).unwrap();
    let good = parameters(&header);
    let bad = [
        String::new(),
        "k".into(),
        good.replace("s=2055", "s=1027"),
        good.replace("s=2055", "s=02055"),
        good.replace("k=", "k=="),
        good.replace("v=", "v=\""),
        good.replace(", s=2055", ""),
        format!("{good}, {good}"),
        format!("{good}, realm=\"x\""),
        good.replace("p=", "p=A"),
    ];
    for text in bad {
        assert!(verify(&server, &text, TARGET).is_err(), "{text}");
    }
}
