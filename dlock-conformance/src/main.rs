//! The suite as a program: see [`dlock_conformance`].

use std::process::ExitCode;

fn main() -> ExitCode {
    dlock_conformance::cli::main()
}
