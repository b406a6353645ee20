//! The real binary, as a user runs it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod access;
mod audit;
mod call;
mod commands;
mod config;
mod crash;
mod git;
mod machine;
mod prompt;
mod served;
mod vault;
