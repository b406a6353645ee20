//! A gate for tests of what asks one.

use std::sync::atomic::{AtomicBool, Ordering};

use alknet_core::BoxFuture;
use gix::ObjectId;

use super::{Gate, Push, RefChange, Refused, Say};

/// Agrees to everything, and says more than there is room for once refs have changed.
#[derive(Debug, Default)]
pub(crate) struct Agrees {
    /// Whether it has said all of it.
    pub(crate) done: AtomicBool,
}

impl Gate for Agrees {
    fn signed(&self, _: ObjectId, _: u64) -> BoxFuture<'_, bool> {
        Box::pin(async { true })
    }

    fn check<'a>(&'a self, _: Push, _: &'a Say) -> BoxFuture<'a, Refused> {
        Box::pin(async { Refused::new() })
    }

    fn update<'a>(&'a self, _: Vec<RefChange>, _: &'a Say) -> BoxFuture<'a, Refused> {
        Box::pin(async { Refused::new() })
    }

    fn done<'a>(&'a self, _: Vec<RefChange>, say: &'a Say) -> BoxFuture<'a, ()> {
        Box::pin(async {
            for _ in 0..1000 {
                say.line("text").await;
            }
            self.done.store(true, Ordering::Relaxed);
        })
    }

    fn unasked(&self, _: Vec<RefChange>, _: Option<String>) {}
}
