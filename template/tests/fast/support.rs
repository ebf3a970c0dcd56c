//! Repositories for the tests: the template with an older and a newer version, and projects that a
//! team changed. All of them are in temporary folders, which the operating system's folder for
//! temporary files contains: inside `target`, cargo would find the workspace around them.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use template::{Project, Scaffold, Update, scaffold};

/// The repository that contains this crate.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder").to_owned()
}

pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=team", "-c", "user.email=team@localhost"];
    let output = Command::new("git").args(identity).args(arguments).current_dir(folder).output().expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

pub fn commit(folder: &Path) -> String {
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--message", "a change"]);
    git(folder, &["rev-parse", "HEAD"])
}

pub fn read(folder: &Path, path: &str) -> String {
    fs::read_to_string(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder is created");
    fs::write(path, text).expect("a file is written");
}

/// Replaces a text that must be there.
pub fn edit(folder: &Path, path: &str, from: &str, to: &str) {
    let text = read(folder, path);
    assert!(text.contains(from), "{path} does not contain {from:?}");
    write(folder, path, &text.replacen(from, to, 1));
}

pub fn append(folder: &Path, path: &str, text: &str) {
    write(folder, path, &(read(folder, path) + text));
}

pub fn rename(folder: &Path, from: &str, to: &str) {
    fs::rename(folder.join(from), folder.join(to)).unwrap_or_else(|error| panic!("{from}: {error}"));
}

/// A file of the kernel that [`older`] changes.
pub const KERNEL_FILE: &str = "crates/palisade/src/problem/mod.rs";
/// The kernel's settings, and the text that [`older`] removes from them.
pub const SETTINGS: &str = "crates/palisade/src/settings/table.rs";
const SETTING: &str = "        docs: bool =";
/// The file that [`older`] renames.
pub const RENAMED: &str = "docs/glossary.md";
pub const OLD_NAME: &str = "docs/terms.md";
/// The file that [`older`] adds.
pub const DELETED: &str = "docs/retired.md";
/// The handler that the team edits.
pub const HANDLER: &str = "src/api/products.rs";

/// Turns a tree of the template into an older one: the newer one has a change of the kernel, a
/// change of the service, a renamed file, a deleted file, a new setting and other generated texts.
pub fn older(template: &Path) {
    append(template, KERNEL_FILE, "// An old line of the kernel.\n");
    append(template, HANDLER, "// An old line of the service.\n");
    rename(template, RENAMED, OLD_NAME);
    write(template, DELETED, "Retired.\n");

    let text = read(template, SETTINGS);
    let start = text.find(SETTING).expect("the setting");
    let length = text[start..].find(";\n").expect("the end of the setting") + 2;
    write(template, SETTINGS, &(text[..start].to_owned() + &text[start + length..]));
    edit(template, "docs/openapi.json", "\"openapi\"", "\"old\"");
    edit(template, "SECURITY.md", "| THREAT-01 |", "| OLD-01 |");
    edit(template, "Cargo.toml", "version = \"", "version = \"0.0.1-");
}

/// Migrations of service and kernel that only the newer version of [`Template::standard`] has.
pub const NEW_MIGRATION: &str = "migrations/0900_new_in_the_template.sql";
pub const NEW_KERNEL_MIGRATION: &str = "crates/palisade/migrations/core/0900_new_in_the_kernel.sql";

/// A repository of the template with two commits.
pub struct Template {
    folder: TempDir,
    pub old: String,
    pub new: String,
}

impl Template {
    /// With the older version of [`older`].
    pub fn standard() -> Self {
        Self::new(older, |template| {
            for migration in [NEW_MIGRATION, NEW_KERNEL_MIGRATION] {
                write(template, migration, "select 1;\n");
            }
        })
    }

    /// With versions that `older` and `newer` make of this repository's files. The older one is
    /// checked out.
    pub fn new(older: impl FnOnce(&Path), newer: impl FnOnce(&Path)) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path();
        git(path, &["init", "--quiet"]);
        // Files that this repository has committed are not stored again.
        let objects = repository().join(git(&repository(), &["rev-parse", "--git-path", "objects"]));
        write(path, ".git/objects/info/alternates", &format!("{}\n", objects.display()));
        let git_dir = format!("--git-dir={}", path.join(".git").display());
        let work_tree = format!("--work-tree={}", repository().display());
        git(&repository(), &[&git_dir, &work_tree, "add", "--all", "."]);
        git(path, &["checkout-index", "--all", "--force"]);
        let files = git(path, &["write-tree"]);
        older(path);
        let old = commit(path);
        git(path, &["read-tree", "--reset", "-u", &files]);
        newer(path);
        let new = commit(path);
        git(path, &["checkout", "--quiet", "--detach", &old]);
        Self { folder, old, new }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Checks the newer version out.
    pub fn advance(&self) {
        git(self.path(), &["checkout", "--quiet", &self.new]);
    }

    pub fn scaffold(&self, destination: &Path, answers: &[&str]) -> Project {
        self.try_scaffold(destination, "my-billing", answers).expect("generates")
    }

    pub fn try_scaffold(&self, destination: &Path, name: &str, answers: &[&str]) -> anyhow::Result<Project> {
        scaffold(Scaffold {
            template: self.path().to_owned(),
            name: name.to_owned(),
            destination: Some(destination.to_owned()),
            answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
            silent: true,
            git: true,
        })
    }

    /// A project of the older version, committed as a team would, with the newer version checked
    /// out in the template.
    pub fn project(&self, destination: &Path, change: impl FnOnce(&Path)) -> PathBuf {
        let project = self.scaffold(destination, &[]).folder;
        change(&project);
        commit(&project);
        self.advance();
        project
    }

    pub fn update(&self, project: &Path) -> Update {
        Update { template: self.path().to_owned(), project: project.to_owned(), answers: Vec::new(), check: false }
    }
}

/// Cargo in a project, as a user runs it.
pub fn cargo(project: &Path) -> Command {
    in_project(project, env!("CARGO"))
}

/// A command in a project, with this repository's target folder, which already has the
/// dependencies.
pub fn in_project(project: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    command.current_dir(project).env("CARGO_TARGET_DIR", target);
    // Cargo has set these variables for this test.
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST"))
    {
        command.env_remove(name);
    }
    command
}
