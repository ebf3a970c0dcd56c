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

use clap::ValueEnum;

use crate::{Failure, operations::Operation, process};

/// The patches in `without/`, by the names of their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Control {
    Token,
    TokenCache,
    RowSecurity,
    Sealing,
    Audit,
    Quotas,
    Log,
    Traces,
    /// All but the cache, which saves time. What remains is the cost of everything else.
    All,
}

impl Control {
    pub(crate) const NAMES: [&str; 9] =
        ["token", "token-cache", "row-security", "sealing", "audit", "quotas", "log", "traces", "all"];

    pub(crate) fn name(self) -> String {
        self.to_possible_value().expect("each control has a name").get_name().to_owned()
    }

    /// The operations that show its cost.
    pub(crate) fn operations(self) -> &'static [Operation] {
        match self {
            Self::Token | Self::TokenCache => &[Operation::Read],
            Self::Sealing => &[Operation::Customer],
            Self::Audit => &[Operation::Create, Operation::Pay],
            Self::RowSecurity | Self::Quotas | Self::Log | Self::Traces => {
                &[Operation::Read, Operation::List, Operation::Create]
            }
            Self::All => &Operation::SERVED,
        }
    }
}

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

/// The release binary without a control.
pub(crate) fn binary(control: Control, folder: &Path) -> PathBuf {
    folder.join(format!("without-{}", control.name()))
}

/// Builds the [`binary`] without a control.
pub(crate) async fn build_without(control: Control, root: &Path, folder: &Path) -> Result<(), Failure> {
    if !root.join("crates/palisade").is_dir() {
        return Err("--controls needs the sources of the kernel in crates/palisade".into());
    }
    let copy = folder.join("source");
    copy_folder(root, &copy)?;
    let taken_out: Vec<Control> = match control {
        Control::All => {
            let kept = [Control::All, Control::TokenCache];
            Control::value_variants().iter().copied().filter(|other| !kept.contains(other)).collect()
        }
        one => vec![one],
    };
    for taken_out in taken_out {
        let patch = root.join("benches/price/without").join(taken_out.name()).with_extension("patch");
        let mut apply = Command::new("git");
        apply.args(["apply", "-C1"]).arg(patch).current_dir(&copy).env("GIT_CEILING_DIRECTORIES", folder);
        process::run(apply, Duration::from_mins(1)).await?;
    }
    let built = build(&copy, &folder.join("target")).await?;
    fs::copy(built, binary(control, folder))?;
    Ok(())
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
