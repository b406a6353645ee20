//! SFTP on standard input and output, for `sftp -D target/debug/examples/sftp_server`: all of
//! the account's files, or, with arguments, those folders alone, each under its own name.

#![allow(clippy::print_stderr, reason = "an example")]

use std::{env, error::Error, path::Path};

use alknet_sftp::{Export, Grant, Session, SftpLimits, Shared, View};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut grants = Vec::new();
    for folder in env::args_os().skip(1) {
        let path = Path::new(&folder);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        grants.extend(Grant::new(&Export::new(name, path)?, true, true));
    }
    let view = if grants.is_empty() { View::account(".".as_ref())? } else { View::exports(grants) };
    let session = Session::new(view, Shared::new(SftpLimits::default()));
    if let Err(error) = session.serve(tokio::io::stdin(), tokio::io::stdout()).await {
        eprintln!("{error}: {:?}", error.source());
    }
    Ok(())
}
