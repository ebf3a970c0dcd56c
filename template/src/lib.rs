//! Generates a service from the repository around this crate.
//!
//! The repository's root is the template; `cargo-generate.toml` says how. This crate wraps
//! cargo-generate's library, so that a newcomer needs nothing but cargo.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use cargo_generate::{GenerateArgs, TemplatePath, Vcs, generate};
use tempfile::TempDir;

/// What to generate.
#[derive(Clone, Debug)]
pub struct Scaffold {
    /// Name of the service, in kebab case.
    pub name: String,
    /// The folder to put the service's own folder into; by default the one that holds this repository.
    pub destination: Option<PathBuf>,
    /// Answers, as `key=value`; see `cargo-generate.toml` for the keys.
    pub answers: Vec<String>,
    /// Take the defaults for what `answers` does not say, instead of asking.
    pub silent: bool,
    /// Start a git repository in it.
    pub git: bool,
}

/// Generates the service and returns its folder.
pub fn scaffold(options: Scaffold) -> Result<PathBuf> {
    check_name(&options.name)?;
    let repository = repository()?;
    let destination = match options.destination {
        Some(destination) => destination,
        None => repository.parent().context("the repository has no folder around it")?.to_owned(),
    };
    std::fs::create_dir_all(&destination).with_context(|| format!("cannot create {}", destination.display()))?;
    let destination = destination.canonicalize()?;
    ensure!(
        !destination.starts_with(&repository),
        "{} is inside the template; name a folder outside with --path",
        destination.display()
    );
    let lock = std::fs::read_to_string(repository.join("Cargo.lock"))?;
    // Cargo could not tell the service from the dependency.
    ensure!(
        !lock.contains(&format!("name = \"{}\"\n", options.name)),
        "`{}` is the name of a dependency",
        options.name
    );
    let files = snapshot(&repository)?;
    let arguments = GenerateArgs {
        template_path: TemplatePath { path: Some(files.path().display().to_string()), ..TemplatePath::default() },
        name: Some(options.name),
        destination: Some(destination),
        define: options.answers,
        silent: options.silent,
        // Its own way takes a git library that nothing else here needs.
        vcs: Some(Vcs::None),
        no_workspace: true,
        ..GenerateArgs::default()
    };
    let project = generate(arguments)?;
    rename_in_lock_file(&project)?;
    if options.git {
        let init = Command::new("git").args(["init", "--quiet"]).current_dir(&project).status();
        ensure!(init.context("cannot run git")?.success(), "cannot start a git repository in {}", project.display());
    }
    Ok(project)
}

/// What cargo accepts as a package name and looks well in a URL, a file name and a database.
fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let well_formed = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(allowed);
    if !well_formed || name.len() > 50 || ["service", "test"].contains(&name) {
        bail!("`{name}` is no name for a service: use lower-case letters, digits and hyphens, as in `my-billing`");
    }
    Ok(())
}

fn repository() -> Result<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate is inside the repository")?;
    Ok(repository.canonicalize()?)
}

/// A copy of the files that are part of the repository: committed or about to be, and nothing
/// that git ignores, such as local secrets.
fn snapshot(repository: &Path) -> Result<TempDir> {
    let copy = TempDir::new()?;
    let list = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository)
        .output()
        .context("cannot run git, which says what belongs to the repository")?;
    ensure!(list.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&list.stderr));
    let names = String::from_utf8(list.stdout).context("a file name is not UTF-8")?;
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (repository.join(name), copy.path().join(name));
        // Deleted, but not yet so for git.
        if !from.exists() {
            continue;
        }
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::copy(&from, &to).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(copy)
}

/// The lock file keeps every version that was tested here; only the package's own name in it is another.
fn rename_in_lock_file(project: &Path) -> Result<()> {
    for arguments in [["update", "--workspace", "--offline"].as_slice(), &["update", "--workspace"]] {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo).args(arguments).current_dir(project).output()?;
        if output.status.success() {
            return Ok(());
        }
    }
    bail!("cannot update {}", project.join("Cargo.lock").display())
}
