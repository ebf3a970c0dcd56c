//! Generates a new service from the repository that contains this crate.
//!
//! The repository's root is the template, and `cargo-generate.toml` configures it. [`scaffold`]
//! copies the repository's files, lets cargo-generate (as a library, so that users need only cargo)
//! fill in the answers, and renames the package in the lock file. `main.rs` calls it for `cargo
//! scaffold`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use cargo_generate::{GenerateArgs, TemplatePath, Vcs, generate};
use tempfile::TempDir;

/// The options of `cargo scaffold`.
#[derive(Clone, Debug)]
pub struct Scaffold {
    /// The service's name, in kebab case.
    pub name: String,
    /// The folder in which to create the service's folder; by default the parent of this
    /// repository.
    pub destination: Option<PathBuf>,
    /// Answers as `key=value`, with the keys of `cargo-generate.toml`.
    pub answers: Vec<String>,
    /// Whether to take the default for every missing answer, instead of asking.
    pub silent: bool,
    /// Whether to initialise a git repository in the service's folder.
    pub git: bool,
}

/// Generates the service and returns its folder.
pub fn scaffold(options: Scaffold) -> Result<PathBuf> {
    check_name(&options.name)?;
    let repository = repository()?;
    let destination = match options.destination {
        Some(destination) => destination,
        None => repository.parent().context("the repository has no parent folder")?.to_owned(),
    };
    std::fs::create_dir_all(&destination).with_context(|| format!("cannot create {}", destination.display()))?;
    let destination = destination.canonicalize()?;
    ensure!(
        !destination.starts_with(&repository),
        "{} is inside the template; choose another folder with --path",
        destination.display()
    );
    let lock = std::fs::read_to_string(repository.join("Cargo.lock"))?;
    // In the lock file, cargo could not distinguish the service from a dependency of the same name.
    ensure!(
        !lock.contains(&format!("name = \"{}\"\n", options.name)),
        "`{}` is the name of a dependency; choose another name",
        options.name
    );
    let files = snapshot(&repository)?;
    let arguments = GenerateArgs {
        template_path: TemplatePath { path: Some(files.path().display().to_string()), ..TemplatePath::default() },
        name: Some(options.name),
        destination: Some(destination),
        define: options.answers,
        silent: options.silent,
        // cargo-generate would need a git library for this; `git init` below does the same.
        vcs: Some(Vcs::None),
        no_workspace: true,
        ..GenerateArgs::default()
    };
    let project = generate(arguments)?;
    rename_in_lock_file(&project)?;
    if options.git {
        let init = Command::new("git").args(["init", "--quiet"]).current_dir(&project).status();
        ensure!(
            init.context("cannot run git")?.success(),
            "cannot initialise a git repository in {}",
            project.display()
        );
    }
    Ok(project)
}

/// Checks that the name is a valid package name that also suits a URL, a file name and a database.
fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let well_formed = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(allowed);
    if !well_formed || name.len() > 50 || ["service", "test"].contains(&name) {
        bail!("`{name}` is not a valid name: use lower-case letters, digits and hyphens, as in `my-billing`");
    }
    Ok(())
}

fn repository() -> Result<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate is inside the repository")?;
    Ok(repository.canonicalize()?)
}

/// Copies the repository's files, tracked and untracked, to a temporary folder. Files that git
/// ignores, such as local secrets, are left out.
fn snapshot(repository: &Path) -> Result<TempDir> {
    let copy = TempDir::new()?;
    let list = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository)
        .output()
        .context("cannot run git, which lists the files of the repository")?;
    ensure!(list.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&list.stderr));
    let names = String::from_utf8(list.stdout).context("a file name is not UTF-8")?;
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let from = repository.join(name);
        let to = copy.path().join(name);
        // A tracked file that was deleted.
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

/// Renames the package in the lock file. The versions of all dependencies stay those tested here.
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
