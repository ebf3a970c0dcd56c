//! The binary of the service. `--help` lists its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::cli::run(service::app())
}
