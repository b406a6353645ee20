//! Which handler serves which ALPN.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{Access, Alpn, ProtocolHandler, handler::DynHandler};

/// ALPN to handler and its [`Access`]. Built once, then immutable.
#[derive(Default)]
pub struct HandlerRegistry {
    entries: BTreeMap<Alpn, Entry>,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) handler: Arc<dyn DynHandler>,
    pub(crate) access: Access,
}

/// Two handlers want one ALPN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two handlers want the ALPN {alpn}: {first} and {second}")]
pub struct DuplicateAlpn {
    /// The contested name.
    pub alpn: Alpn,
    /// The handler that has it.
    pub first: &'static str,
    /// The handler that came later.
    pub second: &'static str,
}

impl HandlerRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler for all its ALPNs, or nothing if one of them is taken.
    pub fn register(
        &mut self,
        handler: impl ProtocolHandler,
        access: Access,
    ) -> Result<(), DuplicateAlpn> {
        let alpns = handler.alpns();
        let second = handler.name();
        if let Some((alpn, first)) =
            alpns.iter().find_map(|alpn| Some((alpn, self.entries.get(alpn)?)))
        {
            return Err(DuplicateAlpn { alpn: alpn.clone(), first: first.handler.name(), second });
        }
        let handler: Arc<dyn DynHandler> = Arc::new(handler);
        for alpn in alpns {
            self.entries.insert(alpn, Entry { handler: handler.clone(), access });
        }
        Ok(())
    }

    /// Every registered ALPN, in order.
    pub fn alpns(&self) -> impl Iterator<Item = &Alpn> {
        self.entries.keys()
    }

    pub(crate) fn duplicate(&self) -> Self {
        Self { entries: self.entries.clone() }
    }

    pub(crate) fn entry(&self, alpn: &Alpn) -> Option<&Entry> {
        self.entries.get(alpn)
    }

    /// Each handler once, however many ALPNs it has.
    pub(crate) fn handlers(&self) -> Vec<Arc<dyn DynHandler>> {
        let mut handlers: Vec<Arc<dyn DynHandler>> = Vec::new();
        for entry in self.entries.values() {
            if !handlers.iter().any(|known| Arc::ptr_eq(known, &entry.handler)) {
                handlers.push(entry.handler.clone());
            }
        }
        handlers
    }
}

impl fmt::Debug for HandlerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.entries.iter().map(|(alpn, e)| (alpn, (e.handler.name(), e.access))))
            .finish()
    }
}
