//! MCP as its clients see it: both kinds of lifecycle, and whoever should see nothing.

mod calls;
mod cancel;
mod client;
mod fixture;
mod sessions;
mod strangers;
