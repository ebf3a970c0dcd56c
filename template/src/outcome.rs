//! The result of [`crate::update`], and the report of it that `cargo scaffold --update` prints.

/// What an update changed, or would change.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Version and commit before.
    pub from: String,
    /// Version and commit after.
    pub to: String,
    /// Changed files, as `git diff --name-status` prints them. None: the project is up to date.
    pub changes: Vec<String>,
    /// Files to resolve by hand.
    pub conflicts: Vec<Conflict>,
    /// New migrations of the template, which the project does not get.
    pub migrations: Vec<String>,
}

/// A file that the project and the template changed differently.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its path in the project.
    pub path: String,
    /// Whether the project has the file.
    pub in_project: bool,
    /// Whether the new version of the template has the file.
    pub in_template: bool,
}

impl Outcome {
    /// The report, of a `check` or of a finished update.
    #[must_use]
    pub fn report(&self, check: bool) -> String {
        let Self { from, to, changes, conflicts, migrations } = self;
        if changes.is_empty() {
            return format!("\nUp to date: {to}\n");
        }
        let verb = if check { "Would update" } else { "Updated" };
        let mut text = format!("\n{verb} from {from} to {to}:\n\n{}", list(changes));
        if !conflicts.is_empty() {
            let conflicts = conflicts.iter().map(|conflict| format!("{}: {}", conflict.path, conflict.reason()));
            text += "\nConflicts, to resolve as after `git merge`:\n\n";
            text += &list(&conflicts.collect::<Vec<_>>());
        }
        if !migrations.is_empty() {
            text += "\nNew migrations of the template, which are not added to yours (docs/upgrading.md):\n\n";
            text += &list(migrations);
        }
        if !check {
            text += "\nNext, in the project:\n\n";
            if !conflicts.is_empty() {
                text += "  git status       # resolve each conflict, then `git add` it\n";
            }
            text += "  .ci/regenerate   # lock file, .sqlx, OpenAPI document, generated tables\n  \
                     cargo test       # then commit\n\n\
                     To undo all: git restore --staged --worktree .\n";
        }
        text
    }
}

fn list(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["  ", line, "\n"]).collect()
}

impl Conflict {
    fn reason(&self) -> &'static str {
        match (self.in_project, self.in_template) {
            (true, true) => "changed by the project and by the template",
            (true, false) => "changed by the project, deleted or moved by the template",
            (false, true) => "deleted or moved by the project, changed by the template",
            (false, false) => "moved by the project and by the template",
        }
    }
}
