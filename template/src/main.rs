//! `cargo scaffold NAME` and `cargo scaffold --update PATH`: the command line of
//! [`template::scaffold`] and [`template::update`].

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Parser;
use template::{Scaffold, Update, scaffold, update};

/// Generates a new service from this repository, or updates one
#[derive(Parser)]
#[command(name = "cargo scaffold", version)]
struct Arguments {
    /// Name of the new service, in kebab case: my-billing
    #[arg(required_unless_present = "update", conflicts_with = "update")]
    name: Option<String>,
    /// Folder in which to create the service's folder [default: the parent of this repository]
    #[arg(long, conflicts_with = "update")]
    path: Option<PathBuf>,
    /// Bring the changes of this repository into the project in PATH (docs/upgrading.md)
    #[arg(long, value_name = "PATH")]
    update: Option<PathBuf>,
    /// With --update: only report what would change
    #[arg(long, requires = "update", conflicts_with = "name")]
    check: bool,
    /// Answer a question in advance: description, author, issuer, audience, license, owners, kernel
    #[arg(short, long = "define", value_name = "KEY=VALUE")]
    define: Vec<String>,
    /// Take the default for every question not answered by -d
    #[arg(long)]
    silent: bool,
    /// Do not initialise a git repository
    #[arg(long)]
    no_git: bool,
}

fn main() -> Result<ExitCode> {
    let Arguments { name, path, update: project, check, define, silent, no_git } = Arguments::parse();
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the template has a folder")?.to_owned();
    if let Some(project) = project {
        let outcome = update(&Update { template, project, answers: define, check })?;
        print!("{}", outcome.report(check));
        return Ok(if outcome.conflicts.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    // Without a terminal no one can answer questions.
    let silent = silent || !std::io::IsTerminal::is_terminal(&std::io::stdin());
    let name = name.unwrap_or_default();
    let project = scaffold(Scaffold { template, name, destination: path, answers: define, silent, git: !no_git })?;
    println!(
        "\nNext:\n\n  cd {}\n  cargo dev     # the whole stack, running\n  cargo test    # its security suite\n",
        project.folder.display()
    );
    if !project.can_be_updated {
        println!(
            "This project cannot be updated later, because the template has uncommitted changes.\n\
             Commit them, delete the project and run this again to get one that can.\n"
        );
    }
    Ok(ExitCode::SUCCESS)
}
