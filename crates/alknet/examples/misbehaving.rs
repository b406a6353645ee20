//! The whole program with a service that misbehaves, for the tests: `alknet/panic` panics
//! on its first stream, and with `TWO_HANDLERS` in the environment two handlers want it.

use std::{env, process::ExitCode};

use alknet_core::{Access, Alpn, AuthContext, Connection, HandlerError, ProtocolHandler};

fn main() -> ExitCode {
    alknet::main_with(|services| {
        services.register(Panics("clumsy"), Access::Scope)?;
        if env::var_os("TWO_HANDLERS").is_some() {
            services.register(Panics("greedy"), Access::Scope)?;
        }
        Ok(())
    })
}

/// A handler for `alknet/panic`, with its name.
struct Panics(&'static str);

impl ProtocolHandler for Panics {
    fn name(&self) -> &'static str {
        self.0
    }

    fn alpns(&self) -> Vec<Alpn> {
        Alpn::service("panic").into_iter().collect()
    }

    #[allow(clippy::panic, reason = "it is what the handler is for")]
    async fn handle(&self, connection: Connection, _auth: AuthContext) -> Result<(), HandlerError> {
        let _stream = connection.accept_bi().await?;
        panic!("on purpose")
    }
}
