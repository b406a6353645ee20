//! The program `alknet`.

use std::process::ExitCode;

fn main() -> ExitCode {
    alknet::main_with(|_| Ok(()))
}
