//! `alknet call` and `alknet status NODE` where no node is needed.

use crate::machine::Machine;

#[test]
fn what_makes_no_sense_is_used_wrongly() {
    let machine = Machine::new();
    for args in [
        &["call"][..],
        &["call", "127.0.0.1:1"],
        &["call", "127.0.0.1:1", "node/status", "{"],
        &["call", "127.0.0.1:1", "node/status", "words"],
        &["call", "127.0.0.1:1", "node/status", "a=1", "b"],
        &["call", "127.0.0.1:1", "--list", "node/status"],
        &["call", "127.0.0.1:1", "node/status", "--schema", "a=1"],
        &["call", "127.0.0.1:1", "node/status", "--timeout", "0s"],
        &["call", "127.0.0.1:1", "node/status", "--timeout", "soon"],
        &["call", "127.0.0.1:1", "node/status", "--via", "pigeon"],
    ] {
        machine.fails(2, args);
    }
}

#[test]
fn a_node_that_is_not_there_is_a_failure() {
    let machine = Machine::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for args in
        [&["call", &nobody.to_string(), "node/status"][..], &["status", &nobody.to_string()]]
    {
        let args = [args, &["--via", "tls"]].concat();
        assert!(machine.fails(1, &args).contains("cannot reach"), "{args:?}");
    }
}
