//! The merge of an update: the project and two rendered versions of the template, as three trees of
//! a temporary repository. The project's repository is not written to until [`Merge::apply`].

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    git::{command, git, output, run},
    outcome::Conflict,
};

/// A finished merge.
pub(crate) struct Merge {
    repository: TempDir,
    project: PathBuf,
    /// The trees of the project before and after the merge.
    before: String,
    after: String,
    stages: Vec<Stage>,
}

/// One version of a conflicting file, as in git's index.
struct Stage {
    /// Mode, object and stage, as `git update-index` reads them.
    entry: String,
    path: String,
}

impl Merge {
    /// Merges the difference between the folders `base` and `new` into the committed state of the
    /// project.
    pub(crate) fn new(project: &Path, base: &Path, new: &Path) -> Result<Self> {
        let repository = TempDir::new()?;
        let path = repository.path();
        let format = git(project, &["rev-parse", "--show-object-format"])?;
        git(path, &["init", "--quiet", "--object-format", &format])?;
        // The project's objects are read where they are.
        let objects = project.join(git(project, &["rev-parse", "--git-path", "objects"])?);
        fs::write(path.join(".git/objects/info/alternates"), format!("{}\n", objects.canonicalize()?.display()))?;

        let before = git(project, &["rev-parse", "HEAD:./"])?;
        let base = commit(path, "base", &tree(path, base)?, None)?;
        commit(path, "project", &before, Some(&base))?;
        commit(path, "template", &tree(path, new)?, Some(&base))?;
        // A file that the team added to a folder follows that folder's renaming.
        git(path, &["config", "merge.directoryRenames", "true"])?;
        let merge = ["merge-tree", "--write-tree", "-z", "--no-messages", "project", "template"];
        let merged = output(&mut command(path, &merge))?;
        ensure!(
            matches!(merged.status.code(), Some(0 | 1)),
            "git cannot merge; version 2.38 or later is needed: {}",
            String::from_utf8_lossy(&merged.stderr).lines().next().unwrap_or_default()
        );
        let text = String::from_utf8(merged.stdout).context("a file name is not UTF-8; rename that file")?;
        let mut parts = text.split('\0').filter(|part| !part.is_empty());
        let after = parts.next().context("git printed no merged tree")?.to_owned();
        let stages = parts.filter_map(|part| part.split_once('\t'));
        let stages = stages.map(|(entry, path)| Stage { entry: entry.to_owned(), path: path.to_owned() }).collect();
        commit(path, "merged", &after, None)?;
        Ok(Self { repository, project: project.to_owned(), before, after, stages })
    }

    /// The changes of the project's files, as `git diff --name-status` prints them.
    pub(crate) fn changes(&self) -> Result<Vec<String>> {
        let changes = ["diff-tree", "-r", "-M", "--name-status", &self.before, &self.after];
        Ok(git(self.repository.path(), &changes)?.lines().map(str::to_owned).collect())
    }

    /// The files that the project and the template changed differently.
    pub(crate) fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts: Vec<Conflict> = Vec::new();
        for Stage { entry, path } in &self.stages {
            let is_known = conflicts.last().is_some_and(|conflict| conflict.path == *path);
            if !is_known {
                conflicts.push(Conflict { path: path.clone(), in_project: false, in_template: false });
            }
            if let Some(conflict) = conflicts.last_mut() {
                conflict.in_project |= entry.ends_with('2');
                conflict.in_template |= entry.ends_with('3');
            }
        }
        conflicts
    }

    /// Writes the result to the project's work tree and index: all of it or, on a failure, nothing.
    /// Conflicts become unmerged files, as after `git merge`.
    pub(crate) fn apply(&self) -> Result<()> {
        let folder = self.repository.path();
        let difference = ["diff-tree", "-p", "--binary", "--full-index", &self.before, &self.after];
        let patch = folder.join("patch");
        ensure!(
            command(folder, &difference).stdout(File::create(&patch)?).status()?.success(),
            "git cannot write the changes; nothing was changed"
        );
        if !self.stages.is_empty() {
            // The versions of the template, for `git mergetool` and `git checkout --theirs`.
            let source = folder.display().to_string();
            let fetch = ["-c", "maintenance.auto=false", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
            git(&self.project, &[&fetch[..], &[&source, "base", "template", "merged"]].concat())?;
        }
        let root = git(&self.project, &["rev-parse", "--show-toplevel"])?;
        let prefix = git(&self.project, &["rev-parse", "--show-prefix"])?;
        let mut apply = command(root.as_ref(), &["apply", "--index", "--whitespace=nowarn"]);
        if !prefix.is_empty() {
            apply.arg(format!("--directory={prefix}"));
        }
        run(apply.arg(&patch)).context("nothing was changed; move the files that are in the way and try again")?;
        self.mark_conflicts(root.as_ref(), &prefix)
    }

    fn mark_conflicts(&self, root: &Path, prefix: &str) -> Result<()> {
        // Without its merged entry, which has stage 0, the file can have several.
        let zero = "0".repeat(self.after.len());
        let conflicts = self.conflicts();
        let merged = conflicts.iter().map(|conflict| format!("0 {zero}\t{prefix}{}\0", conflict.path));
        let stages = self.stages.iter().map(|stage| format!("{}\t{prefix}{}\0", stage.entry, stage.path));
        let entries: String = merged.chain(stages).collect();
        let file = self.repository.path().join("entries");
        fs::write(&file, entries)?;
        let mut update = command(root, &["update-index", "-z", "--index-info"]);
        run(update.stdin(Stdio::from(File::open(file)?)))?;
        Ok(())
    }
}

/// The tree of all files in `folder`, also of those that its `.gitignore` names.
fn tree(repository: &Path, folder: &Path) -> Result<String> {
    let work_tree = format!("--work-tree={}", folder.display());
    let git_dir = format!("--git-dir={}", repository.join(".git").display());
    git(repository, &["read-tree", "--empty"])?;
    git(folder, &[&git_dir, &work_tree, "add", "--all", "--force", "."])?;
    git(repository, &["write-tree"])
}

/// Commits a tree under a name, which conflict markers show.
fn commit(repository: &Path, name: &str, tree: &str, parent: Option<&str>) -> Result<String> {
    let identity = ["-c", "user.name=scaffold", "-c", "user.email=scaffold@localhost"];
    let parent = parent.map_or(Vec::new(), |parent| vec!["-p", parent]);
    let commit = git(repository, &[&identity[..], &["commit-tree", "-m", name, tree], &parent].concat())?;
    git(repository, &["update-ref", &format!("refs/heads/{name}"), &commit])?;
    Ok(commit)
}
