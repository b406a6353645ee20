//! A node with one service, and a client that uses it over QUIC and over TLS.
//!
//! `cargo run -p alknet-core --example echo`

mod handler;

use std::{error::Error, sync::Arc, time::Duration};

use alknet_core::{
    Access, Alpn, Audit, Dial, Dispatcher, Endpoint, EndpointConfig, HandlerRegistry, Limits,
    NodeIdentity, Pin, SelfSigned, WebCertificates,
};
use alknet_testing::identities::Identities;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut registry = HandlerRegistry::new();
    registry.register(handler::Echo, Access::Public)?;

    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed)?;
    let identity = Arc::new(NodeIdentity::from_seed(&seed)?);
    let certificate = SelfSigned::generate(&["localhost".into()], time::OffsetDateTime::now_utc())?;
    let config = EndpointConfig {
        listen: "127.0.0.1:0".parse()?,
        identity: identity.clone(),
        web: WebCertificates::new(certificate.current()?),
        hide_services: false,
        fallback: None,
        resets: None,
    };
    let dispatcher = Dispatcher::new(registry, Limits::default(), Audit::to_log());
    let endpoint = Endpoint::bind(&config, dispatcher, Arc::new(Identities::new()))?;

    let dial = Dial {
        server_name: "localhost".into(),
        alpn: Alpn::service("echo")?,
        pin: Pin::Expect(identity.id()),
        key: None,
        timeout: Duration::from_secs(5),
    };
    for dialled in [dial.quic(endpoint.local_addr()).await?, dial.tls(endpoint.local_addr()).await?]
    {
        let mut stream = dialled.connection.open_bi().await?;
        stream.write_all(b"hello").await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        show(&format!("{} says {answer}", dialled.connection.kind()));
    }
    endpoint.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

#[allow(clippy::print_stdout, reason = "an example shows what it does")]
fn show(line: &str) {
    println!("{line}");
}
