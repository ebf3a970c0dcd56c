//! The binary of the sample service, for tests of commands and processes.

use std::process::ExitCode;

fn main() -> ExitCode {
    palisade::cli::run(sample::app())
}
