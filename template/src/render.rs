//! Renders the template: takes its files from the work tree or from a commit, and lets
//! cargo-generate (as a library, so that users need only cargo) fill in the answers. The rules, in
//! `cargo-generate.toml` and `template/pre.rhai`, are those of the rendered state.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cargo_generate::{GenerateArgs, TemplatePath, Vcs, generate};
use tempfile::TempDir;

use crate::git::{command, git, run};

/// Renders the template in `files` as the project `folder/name` and returns its path.
pub(crate) fn render(files: &Path, folder: &Path, name: &str, answers: Vec<String>, silent: bool) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    generate(GenerateArgs {
        template_path: TemplatePath { path: Some(files.display().to_string()), ..TemplatePath::default() },
        name: Some(name.to_owned()),
        destination: Some(folder.to_owned()),
        define: answers,
        silent,
        // cargo-generate would need a git library for this; `git init` does the same.
        vcs: Some(Vcs::None),
        no_workspace: true,
        ..GenerateArgs::default()
    })
}

/// Copies the repository's files, tracked and untracked, to a temporary folder. Files that git
/// ignores, such as local secrets, are left out.
pub(crate) fn snapshot(repository: &Path) -> Result<TempDir> {
    let copy = TempDir::new()?;
    let names = git(repository, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let from = repository.join(name);
        let to = copy.path().join(name);
        // A tracked file that was deleted.
        if !from.exists() {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(&from, &to).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(copy)
}

/// Writes the files of a commit to a temporary folder, without touching the repository's index.
pub(crate) fn files_of_commit(repository: &Path, commit: &str) -> Result<TempDir> {
    let copy = TempDir::new()?;
    let index = TempDir::new()?;
    let prefix = format!("--prefix={}/", copy.path().display());
    for arguments in [["read-tree", commit].as_slice(), &["checkout-index", "--all", &prefix]] {
        run(command(repository, arguments).env("GIT_INDEX_FILE", index.path().join("index")))?;
    }
    Ok(copy)
}
