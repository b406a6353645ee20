//! What a program of one's own adds to the node.

use std::fmt;

use alknet_call::{InvalidOperation, Operation};
use alknet_core::{Access, DuplicateAlpn, HandlerRegistry, ProtocolHandler};

/// The services and operations of a node, to be added to.
pub struct Additions {
    pub(crate) handlers: HandlerRegistry,
    pub(crate) operations: Vec<Operation>,
}

/// Something cannot be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdditionError {
    /// The ALPN of a handler is taken.
    #[error(transparent)]
    Alpn(#[from] DuplicateAlpn),
    /// An operation makes no sense.
    #[error(transparent)]
    Operation(#[from] InvalidOperation),
}

impl Additions {
    /// Adds a handler.
    pub fn register(
        &mut self,
        handler: impl ProtocolHandler,
        access: Access,
    ) -> Result<(), AdditionError> {
        Ok(self.handlers.register(handler, access)?)
    }

    /// Adds an operation, which is then reached by `alknet/call`, REST and MCP alike.
    pub fn operation(
        &mut self,
        operation: Result<Operation, InvalidOperation>,
    ) -> Result<(), AdditionError> {
        self.operations.push(operation?);
        Ok(())
    }
}

impl fmt::Debug for Additions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Additions").field("operations", &self.operations).finish_non_exhaustive()
    }
}
