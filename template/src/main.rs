//! `cargo scaffold NAME`: a new service from this repository.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use template::{Scaffold, scaffold};

/// Generates a new service from this repository
#[derive(Parser)]
#[command(name = "cargo scaffold", version)]
struct Arguments {
    /// Name of the service, in kebab case: my-billing
    name: String,
    /// Folder to put the service's own folder into [default: the one that holds this repository]
    #[arg(long)]
    path: Option<PathBuf>,
    /// Answer a question in advance: description, author, issuer, audience, license
    #[arg(short, long = "define", value_name = "KEY=VALUE")]
    define: Vec<String>,
    /// Take the default for every question not answered by -d
    #[arg(long)]
    silent: bool,
    /// Do not start a git repository
    #[arg(long)]
    no_git: bool,
}

fn main() -> Result<()> {
    let Arguments { name, path, define, silent, no_git } = Arguments::parse();
    // cargo-generate wants to know who is asking, and some containers do not say.
    let silent = silent || !std::io::IsTerminal::is_terminal(&std::io::stdin());
    let project = scaffold(Scaffold { name, destination: path, answers: define, silent, git: !no_git })?;
    println!(
        "\nNext:\n\n  cd {}\n  cargo dev     # the whole stack, running\n  cargo test    # its security suite\n",
        project.display()
    );
    Ok(())
}
