//! The binary of the service. `--help` lists its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    palisade::cli::run(service::app())
}
