//! Repositories, by every way to them.

mod flows;
mod hostile;
mod http;
mod lfs;
mod native;
mod ssh;
