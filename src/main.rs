//! The binary of the service. `--help` lists its commands.

use std::process::ExitCode;

/// Requests make many small, short-lived values; the README's figures need a fast allocator. Its
/// secure mode puts guard pages between heap blocks and hides its free lists.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    palisade::cli::run(service::app())
}
