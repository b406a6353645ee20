//! Changes to whom the node knows, by a command beside it or by an operation: what is done,
//! and what the audit log says of it.

pub(crate) mod explain;
pub(crate) mod peers;
pub(crate) mod tokens;

use alknet_core::AuditEvent;

use crate::home::HomeError;

/// A change was not made, or not recorded.
#[derive(Debug)]
pub(crate) enum ChangeError<E> {
    /// It was not made.
    Refused(E),
    /// It was made, and the audit log could not be written.
    Unrecorded(HomeError),
}

impl<E> From<E> for ChangeError<E> {
    fn from(error: E) -> Self {
        Self::Refused(error)
    }
}

/// Where the entries of the audit log about a change go.
pub(crate) trait Record: FnMut(Vec<AuditEvent>) -> Result<(), HomeError> + Send {}

impl<F: FnMut(Vec<AuditEvent>) -> Result<(), HomeError> + Send> Record for F {}
