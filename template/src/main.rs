//! `cargo scaffold NAME`: the command line of [`template::scaffold`].

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use clap::Parser;
use template::{Scaffold, scaffold};

/// Generates a new service from this repository
#[derive(Parser)]
#[command(name = "cargo scaffold", version)]
struct Arguments {
    /// Name of the service, in kebab case: my-billing
    name: String,
    /// Folder in which to create the service's folder [default: the parent of this repository]
    #[arg(long)]
    path: Option<PathBuf>,
    /// Answer a question in advance: description, author, issuer, audience, license
    #[arg(short, long = "define", value_name = "KEY=VALUE")]
    define: Vec<String>,
    /// Take the default for every question not answered by -d
    #[arg(long)]
    silent: bool,
    /// Do not initialise a git repository
    #[arg(long)]
    no_git: bool,
}

/// cargo-generate reads the user's name from these variables and fails without any, as in many
/// containers.
const USER_VARIABLES: [&str; 2] = ["USER", "USERNAME"];

fn main() -> Result<()> {
    if USER_VARIABLES.iter().all(|name| std::env::var_os(name).is_none()) {
        // Sets the variable for a second process: writing to this one's environment would be
        // unsafe.
        let status =
            Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).env("USER", "you").status()?;
        std::process::exit(status.code().unwrap_or(1));
    }
    let Arguments { name, path, define, silent, no_git } = Arguments::parse();
    // Without a terminal no one can answer questions.
    let silent = silent || !std::io::IsTerminal::is_terminal(&std::io::stdin());
    let project = scaffold(Scaffold { name, destination: path, answers: define, silent, git: !no_git })?;
    println!(
        "\nNext:\n\n  cd {}\n  cargo dev     # the whole stack, running\n  cargo test    # its security suite\n",
        project.display()
    );
    Ok(())
}
