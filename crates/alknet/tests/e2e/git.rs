//! Repositories, by every way to them.

mod flows;
mod hostile;
mod http;
mod keeping;
mod lfs;
mod mirrors;
mod native;
mod ssh;
