//! Generates a new service from the repository that contains this crate, and updates services that
//! it generated.
//!
//! The repository's root is the template, and `cargo-generate.toml` configures it. [`scaffold`]
//! renders the repository's files; [`update`] renders two of its versions and merges their
//! difference into a project. `main.rs` calls both for `cargo scaffold`.

mod generated;
mod git;
mod merge;
mod outcome;
mod record;
mod render;
mod update;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::Builder;

pub use crate::{
    generated::{GENERATED, GENERATED_BLOCKS},
    outcome::{Conflict, Outcome},
    update::{Update, update},
};

/// The options of `cargo scaffold`.
#[derive(Clone, Debug)]
pub struct Scaffold {
    /// The repository that is the template.
    pub template: PathBuf,
    /// The service's name, in kebab case.
    pub name: String,
    /// The folder in which to create the service's folder; by default the parent of the template.
    pub destination: Option<PathBuf>,
    /// Answers as `key=value`, with the keys of `cargo-generate.toml`.
    pub answers: Vec<String>,
    /// Whether to take the default for every missing answer, instead of asking.
    pub silent: bool,
    /// Whether to initialise a git repository in the service's folder. Inside the work tree of
    /// another one, none is initialised.
    pub git: bool,
}

/// A generated service.
#[derive(Debug)]
pub struct Project {
    /// Its folder.
    pub folder: PathBuf,
    /// Whether the template had no uncommitted changes. Only then can the project be updated.
    pub can_be_updated: bool,
}

/// Generates the service. It appears in its folder when it is complete, so that a failure leaves
/// nothing behind.
pub fn scaffold(options: Scaffold) -> Result<Project> {
    check_name(&options.name)?;
    let template = options.template.canonicalize()?;
    let lock = fs::read_to_string(template.join("Cargo.lock"))?;
    // In the lock file, cargo could not distinguish the service from a dependency of the same name.
    ensure!(
        !lock.contains(&format!("name = \"{}\"\n", options.name)),
        "`{}` is the name of a dependency; choose another name",
        options.name
    );
    let destination = match options.destination {
        Some(destination) => destination,
        None => template.parent().context("the template has no parent folder; choose a folder with --path")?.to_owned(),
    };
    let place = Place::new(&destination.join(&options.name))?;
    ensure!(
        !place.existing.starts_with(&template),
        "{} is inside the template; choose another folder with --path",
        place.project().display()
    );

    let files = render::snapshot(&template)?;
    let staging = Builder::new()
        .prefix(".scaffold-")
        .tempdir_in(&place.existing)
        .with_context(|| format!("cannot write to {}; choose another folder with --path", place.existing.display()))?;
    let folder = staging.path().join(place.missing.parent().unwrap_or(Path::new("")));
    let project = render::render(files.path(), &folder, &options.name, options.answers, options.silent)?;
    let is_clean = git::git(&template, &["status", "--porcelain", "--untracked-files=normal"])?.is_empty();
    let commit = if is_clean { Some(git::git(&template, &["rev-parse", "HEAD"])?) } else { None };
    record::complete(&project, &record::version_of_template(files.path())?, commit.as_deref())?;
    rename_in_lock_file(&project)?;
    if options.git && !git::succeeds(&place.existing, &["rev-parse", "--is-inside-work-tree"])? {
        git::git(&project, &["init", "--quiet"])?;
    }
    place.fill(staging.path())?;
    Ok(Project { folder: place.project(), can_be_updated: is_clean })
}

/// Where a project will be.
struct Place {
    /// The nearest folder that exists.
    existing: PathBuf,
    /// The folders below it that do not exist yet; the last is the project's.
    missing: PathBuf,
}

impl Place {
    fn new(project: &Path) -> Result<Self> {
        let project = std::path::absolute(project)?;
        ensure!(!project.exists(), "{} exists; choose another name or folder", project.display());
        let existing = project.ancestors().find(|folder| folder.exists()).context("no folder of the path exists")?;
        let missing = project.strip_prefix(existing)?.to_owned();
        ensure!(
            !missing.iter().any(|part| part == ".."),
            "{} has `..` after a folder that does not exist; write it without",
            project.display()
        );
        Ok(Self { existing: existing.canonicalize()?, missing })
    }

    fn project(&self) -> PathBuf {
        self.existing.join(&self.missing)
    }

    /// Moves the generated folders from `staging` to their place in one step. Takes them back if
    /// they break a cargo workspace around them.
    fn fill(&self, staging: &Path) -> Result<()> {
        let first = self.missing.iter().next().context("the project has no name")?;
        fs::rename(staging.join(first), self.existing.join(first))?;
        if let Some(manifest) = self.workspace_that_includes_it() {
            fs::remove_dir_all(self.existing.join(first))?;
            let root = manifest.parent().unwrap_or(&manifest);
            bail!(
                "the `members` of the workspace {} include the new project, which is a workspace of its own; \
                 add `exclude = [\"{}\"]` to its [workspace] and try again",
                manifest.display(),
                self.project().strip_prefix(root).unwrap_or(&self.missing).display()
            );
        }
        Ok(())
    }

    /// The manifest of a cargo workspace around the project that fails because of the project.
    fn workspace_that_includes_it(&self) -> Option<PathBuf> {
        let find = ["locate-project", "--workspace", "--message-format", "plain"];
        let found = cargo(&self.existing).args(find).output().ok()?;
        let manifest = PathBuf::from(String::from_utf8(found.stdout).ok()?.trim());
        let read = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
        let output = cargo(manifest.parent()?).args(read).output().ok()?;
        let fault = String::from_utf8_lossy(&output.stderr);
        (!output.status.success() && fault.contains(&self.project().display().to_string())).then_some(manifest)
    }
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

fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(folder);
    cargo
}

/// Renames the package in the lock file. The versions of all dependencies stay those tested here.
fn rename_in_lock_file(project: &Path) -> Result<()> {
    let mut fault = Vec::new();
    for arguments in [["update", "--workspace", "--offline"].as_slice(), &["update", "--workspace"]] {
        let output = cargo(project).args(arguments).output()?;
        if output.status.success() {
            return Ok(());
        }
        fault = output.stderr;
    }
    bail!("cargo cannot update the lock file of the new project: {}", String::from_utf8_lossy(&fault).trim())
}
