//! `git/…`: the repositories.
//!
//! Whoever has a grant of any part of `git` may call these, without one of `call`: what they may
//! do with a repository is asked for each time.

mod admin;
mod browse;
mod events;

use std::sync::Arc;

use alknet_call::Access;

use super::{Made, Parts};
use browse::Looking;

/// What grants are called that these operations go by.
const SERVICE: &str = "git";

/// The operations on repositories.
pub(super) fn operations(parts: &Arc<Parts>) -> Made {
    let looking = Arc::new(Looking::new(parts));
    let all = [
        browse::operations(&looking)?,
        events::operations(parts, &looking)?,
        admin::operations(parts)?,
    ];
    let all = all.into_iter().flatten();
    Ok(all.map(|operation| operation.access(Access::Service(SERVICE))).collect())
}
