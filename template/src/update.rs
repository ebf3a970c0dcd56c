//! `cargo scaffold --update PATH`: brings the changes of the template since the project's version
//! into the project. Renders the version that the project was made from and the template's current
//! commit with the project's answers, and merges their difference.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    generated,
    git::{git, succeeds},
    merge::Merge,
    outcome::Outcome,
    record::{self, Record},
    render,
};

/// The kernel's migrations. Databases contain them, so a landed one never changes.
const KERNEL_MIGRATIONS: &str = "crates/palisade/migrations";

/// The options of `cargo scaffold --update`.
#[derive(Clone, Debug)]
pub struct Update {
    /// The repository that is the template. Its HEAD is the new version.
    pub template: PathBuf,
    /// The project.
    pub project: PathBuf,
    /// Changed answers, and answers to new questions, as `key=value`.
    pub answers: Vec<String>,
    /// Whether to only report what would change.
    pub check: bool,
}

/// Updates the project, or with `check` only reports. Changes nothing if it fails.
pub fn update(options: &Update) -> Result<Outcome> {
    let Update { template, project, answers, check } = options;
    let project = &project.canonicalize().with_context(|| format!("{} is not a folder", project.display()))?;
    let record = Record::read(project)?;
    check_project(project)?;
    let head = git(template, &["rev-parse", "HEAD"])?;
    check_template(template, &record.commit, &head)?;
    check_kernel_migrations(template, &record.commit, &head)?;
    let from = format!("{} ({:.10})", record.version, record.commit);
    if record.commit == head && answers.is_empty() {
        return Ok(Outcome { to: from.clone(), from, ..Outcome::default() });
    }
    if record.answers.get("kernel").is_some_and(|kernel| kernel == "git") {
        ensure!(
            answers.iter().any(|answer| answer.starts_with("kernel-tag=")),
            "the project takes its kernel from a repository; name the tag of this version with -d kernel-tag=TAG"
        );
    }

    let base = Rendered::new(template, &record.commit, &record, record.answers(&[]))?;
    let new = Rendered::new(template, &head, &record, record.answers(answers))?;
    record::complete(&new.project, &new.version, Some(&head))?;
    fs::copy(project.join(record::FILE), base.project.join(record::FILE))?;
    let migrations = generated::keep(project, &base.project, &new.project)?;

    let merge = Merge::new(project, &base.project, &new.project)?;
    if !check {
        merge.apply()?;
    }
    let to = format!("{} ({head:.10})", new.version);
    Ok(Outcome { from, to, changes: merge.changes()?, conflicts: merge.conflicts(), migrations })
}

/// A version of the template, rendered to a temporary folder.
struct Rendered {
    version: String,
    project: PathBuf,
    _folder: TempDir,
}

impl Rendered {
    fn new(template: &Path, commit: &str, record: &Record, answers: Vec<String>) -> Result<Self> {
        let files = render::files_of_commit(template, commit)?;
        let folder = TempDir::new()?;
        let project = render::render(files.path(), folder.path(), &record.name, answers, true)
            .with_context(|| format!("cannot render the template's commit {commit}"))?;
        Ok(Self { version: record::version_of_template(files.path())?, project, _folder: folder })
    }
}

fn check_project(project: &Path) -> Result<()> {
    ensure!(
        succeeds(project, &["rev-parse", "--verify", "--quiet", "HEAD:./"])?,
        "{} has no commit of its files; commit them and try again",
        project.display()
    );
    let status = git(project, &["status", "--porcelain", "--untracked-files=normal", "--", "."])?;
    ensure!(status.is_empty(), "the project has uncommitted changes; commit or stash them and try again:\n{status}");
    Ok(())
}

fn check_template(template: &Path, commit: &str, head: &str) -> Result<()> {
    if !succeeds(template, &["cat-file", "-e", &format!("{commit}^{{commit}}")])? {
        if git(template, &["rev-parse", "--is-shallow-repository"])? == "true" {
            bail!(
                "this clone of the template is shallow and has no commit {commit}; run `git fetch --unshallow` in it"
            );
        }
        bail!(
            "this clone of the template has no commit {commit}; run `git fetch` in it, or use the clone it came from"
        );
    }
    ensure!(
        succeeds(template, &["merge-base", "--is-ancestor", commit, head])?,
        "the template's HEAD does not contain commit {commit}, from which the project was made; \
         check out a later version with `git checkout` or `git pull`"
    );
    Ok(())
}

/// Refuses a template that changed or deleted a migration of the kernel: a database that ran it
/// could not be migrated.
fn check_kernel_migrations(template: &Path, commit: &str, head: &str) -> Result<()> {
    let not_added = ["diff", "--name-only", "--no-renames", "--diff-filter=a", commit, head, "--", KERNEL_MIGRATIONS];
    let changed = git(template, &not_added)?;
    ensure!(
        changed.is_empty(),
        "the template changed migrations of the kernel, which databases may have run; \
         report this to the template, and update to an older version:\n{changed}"
    );
    Ok(())
}
