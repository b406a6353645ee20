use proptest::prelude::*;

use super::*;

fn framed(json: &str) -> Vec<u8> {
    [&u32::try_from(json.len()).unwrap().to_be_bytes(), json.as_bytes()].concat()
}

/// The published contract: what stands here is what clients send.
#[tokio::test]
async fn requests_are_read_as_they_are_documented() {
    let id = "00112233445566778899aabbccddeeff";
    let accept = Request::Accept { id: id.parse().unwrap() };
    let cases = [
        (
            r#"{"connect":{"host":"db","port":5432}}"#.to_owned(),
            Request::Connect(Place::tcp("db", 5432)),
        ),
        (r#"{"connect":{"path":"/run/db"}}"#.to_owned(), Request::Connect(Place::unix("/run/db"))),
        (r#"{"udp":{}}"#.to_owned(), Request::Udp {}),
        (r#"{"listen":{"host":"*","port":0}}"#.to_owned(), Request::Listen(Place::tcp("*", 0))),
        (r#"{"listen":{"path":"/run/a"}}"#.to_owned(), Request::Listen(Place::unix("/run/a"))),
        (format!(r#"{{"accept":{{"id":"{id}"}}}}"#), accept),
        (r#"{"ping":{}}"#.to_owned(), Request::Ping {}),
    ];
    for (json, request) in cases {
        assert_eq!(parse(&framed(&json)).await.unwrap(), request, "{json}");
        assert_eq!(serde_json::to_string(&request).unwrap(), json);
    }
}

#[tokio::test]
async fn what_is_no_request_is_an_error() {
    for json in [
        "",
        "null",
        "[]",
        "{}",
        "x",
        r#""udp""#,
        r#"{"connect":{}}"#,
        r#"{"exec":{}}"#,
        r#"{"connect":{"host":"a"}}"#,
        r#"{"connect":{"host":"a","port":-1}}"#,
        r#"{"connect":{"host":"a","port":65536}}"#,
        r#"{"connect":{"host":1,"port":1}}"#,
        r#"{"connect":{"host":"a","port":1,"path":"/b"}}"#,
        r#"{"udp":{"host":"a"}}"#,
        r#"{"connect":{"host":"a","port":1},"udp":{}}"#,
        r#"{"accept":{"id":"12"}}"#,
        r#"{"accept":{"id":"zz112233445566778899aabbccddeeff"}}"#,
        r#"{"udp":{}} x"#,
    ] {
        let error = parse(&framed(json)).await.unwrap_err();
        assert!(matches!(error, HeaderError::Malformed(_)), "{json}: {error}");
    }
    for bytes in [&[0xff; 8][..], &[0, 0, 0x10, 1, b'{']] {
        assert!(matches!(parse(bytes).await, Err(HeaderError::TooLong(_))));
    }
    assert!(matches!(parse(&[0, 0, 0, 9, b'{']).await, Err(HeaderError::Io(_))));
}

#[tokio::test]
async fn answers_are_written_as_they_are_documented() {
    let refused = Refused { code: ErrorCode::NotAllowed, message: "no".into() };
    let bound = Some("10.0.0.1:5".to_owned());
    let cases = [
        (Answer::Ok(Opened::default()), r#"{"ok":{}}"#),
        (Answer::Ok(Opened { bound, peer: None }), r#"{"ok":{"bound":"10.0.0.1:5"}}"#),
        (Answer::Error(refused), r#"{"error":{"code":"not_allowed","message":"no"}}"#),
    ];
    for (answer, json) in cases {
        let mut bytes = Vec::new();
        write(&mut bytes, &answer).await.unwrap();
        assert_eq!(bytes, framed(json));
        assert_eq!(read::<Answer>(&mut &bytes[..]).await.unwrap(), answer);
    }
    let later = framed(r#"{"error":{"code":"of_a_later_version","message":"?"}}"#);
    let Answer::Error(refused) = read(&mut &later[..]).await.unwrap() else { panic!() };
    assert_eq!(refused.code, ErrorCode::Failed);
}

#[test]
fn the_names_of_the_codes_stay() {
    use ErrorCode as C;
    let codes = [
        (C::NotAllowed, "not_allowed"),
        (C::NetworkUnreachable, "network_unreachable"),
        (C::HostUnreachable, "host_unreachable"),
        (C::Refused, "refused"),
        (C::TimedOut, "timed_out"),
        (C::Invalid, "invalid"),
        (C::Unsupported, "unsupported"),
        (C::Limit, "limit"),
        (C::InUse, "in_use"),
        (C::Gone, "gone"),
        (C::Failed, "failed"),
    ];
    for (code, name) in codes {
        assert_eq!(serde_json::to_value(code).unwrap(), name);
    }
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        drop(runtime.block_on(parse(&bytes)));
        drop(runtime.block_on(parse(&framed(&String::from_utf8_lossy(&bytes)))));
    }

    #[test]
    fn places_round_trip(host in "\\PC{0,40}", port: u16) {
        for request in [
            Request::Connect(Place::tcp(host.clone(), port)),
            Request::Listen(Place::unix(host)),
        ] {
            let json = serde_json::to_string(&request).unwrap();
            prop_assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request);
        }
    }
}
