//! Runs git: in the template for its files and commits, in a project for the state of its work
//! tree, and in a temporary repository for the merge of an update.

use std::{
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};

/// Variables by which a git hook, or a user, would point git at another repository.
const REPOSITORY_VARIABLES: [&str; 4] = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"];

/// A git command in `folder`.
pub(crate) fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut git = Command::new("git");
    for name in REPOSITORY_VARIABLES {
        git.env_remove(name);
    }
    git.args(arguments).current_dir(folder);
    git
}

/// The output of a git command, whatever its exit status.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command.output().context("cannot run git; install it and try again")
}

/// Runs the command. Returns its output without the last line break.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        bail!("`git {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout).context("git printed a name that is not UTF-8; rename that file")?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// [`run`] for a command without further options.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    run(&mut command(folder, arguments))
}

/// Whether the command succeeds.
pub(crate) fn succeeds(folder: &Path, arguments: &[&str]) -> Result<bool> {
    Ok(output(&mut command(folder, arguments))?.status.success())
}
