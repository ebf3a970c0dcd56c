//! The service without one control: a patch on a copy of the sources, built like the original.
//!
//! The product has no setting, feature or variable that removes a control, so a measurement needs a
//! build of its own. The copy and its target folder stay for the next run.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{Failure, operations::Operation, process};

/// The patches in `without/`, and the operations that show their cost. [`ALL`] is all of them.
pub(crate) const CONTROLS: [(&str, &[Operation]); 9] = [
    ("token", &[Operation::Read]),
    ("token-cache", &[Operation::Read]),
    ("row-security", &[Operation::Read, Operation::List, Operation::Create]),
    ("sealing", &[Operation::Customer]),
    ("audit", &[Operation::Create, Operation::Pay]),
    ("quotas", &[Operation::Read, Operation::List, Operation::Create]),
    ("log", &[Operation::Read, Operation::List, Operation::Create]),
    ("traces", &[Operation::Read, Operation::List, Operation::Create]),
    (ALL, &Operation::SERVED),
];
/// The service without any of these controls: what remains is the cost of everything else.
pub(crate) const ALL: &str = "all";

const BUILD_LIMIT: Duration = Duration::from_mins(45);
/// Folders of the project that a build does not need.
const SKIPPED: [&str; 4] = ["target", ".git", ".dev", "node_modules"];

/// Builds the release binary as it is.
pub(crate) async fn build(root: &Path, target: &Path) -> Result<PathBuf, Failure> {
    eprintln!("· building the release binary in {}", target.display());
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--locked", "--quiet", "--package", env!("CARGO_PKG_NAME")]).current_dir(root);
    // As shipped: incremental builds are less optimized.
    cargo.env("CARGO_TARGET_DIR", target).env_remove("CARGO_INCREMENTAL");
    process::run(cargo, BUILD_LIMIT).await?;
    Ok(target.join("release").join(env!("CARGO_PKG_NAME")))
}

/// Builds the release binary without a control, in `folder`.
pub(crate) async fn build_without(control: &str, root: &Path, folder: &Path) -> Result<PathBuf, Failure> {
    if !root.join("crates/palisade").is_dir() {
        return Err("--controls needs the sources of the kernel in crates/palisade".into());
    }
    let copy = folder.join("source");
    copy_folder(root, &copy)?;
    for (name, _) in CONTROLS.iter().filter(|(name, _)| *name != ALL && [*name, ALL].contains(&control)) {
        let patch = root.join("benches/price/without").join(name).with_extension("patch");
        let mut apply = Command::new("git");
        apply.args(["apply", "-C1"]).arg(patch).current_dir(&copy).env("GIT_CEILING_DIRECTORIES", folder);
        process::run(apply, Duration::from_mins(1)).await?;
    }
    let built = build(&copy, &folder.join("target")).await?;
    let kept = folder.join(format!("without-{control}"));
    fs::copy(built, &kept)?;
    Ok(kept)
}

/// Makes `to` equal to `from`. A file that is equal keeps its time, so that it is not built again.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !from.join(entry.file_name()).exists() {
            let is_folder = entry.file_type()?.is_dir();
            if is_folder { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) || kind.is_symlink() {
            continue;
        }
        if kind.is_dir() {
            copy_folder(&source, &copy)?;
        } else if fs::read(&copy).ok().as_deref() != Some(&fs::read(&source)?) {
            fs::copy(&source, &copy)?;
        }
    }
    Ok(())
}
