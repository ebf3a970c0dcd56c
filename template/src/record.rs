//! `.palisade.toml` in a generated project: the state of the template that the project contains,
//! and the answers it was made with. [`crate::scaffold`] writes it, [`crate::update`] reads it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Its path in a project. The file itself is rendered from `template/project`.
pub(crate) const FILE: &str = ".palisade.toml";

/// What an update needs to know of a project.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) version: String,
    pub(crate) commit: String,
    pub(crate) name: String,
    pub(crate) answers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct File {
    version: Option<String>,
    commit: Option<String>,
    name: String,
    #[serde(default)]
    answers: BTreeMap<String, String>,
}

impl Record {
    /// Reads the record of a project, and says why a project without a complete one cannot be
    /// updated.
    pub(crate) fn read(project: &Path) -> Result<Self> {
        let path = project.join(FILE);
        let Ok(text) = fs::read_to_string(&path) else {
            bail!(
                "{} is missing, so this is not a project of `cargo scaffold`; docs/upgrading.md says how to write it",
                path.display()
            );
        };
        let File { version, commit, name, answers } =
            toml::from_str(&text).with_context(|| format!("{} is not readable; restore it", path.display()))?;
        match (version, commit) {
            (Some(version), Some(commit)) => Ok(Self { version, commit, name, answers }),
            (Some(_), None) => bail!(
                "this project was made from a template with uncommitted changes, so it cannot be updated; \
                 docs/upgrading.md says how to name a commit"
            ),
            (None, _) => bail!(
                "this project was made by `cargo generate`, which records no version, so it cannot be updated; \
                 docs/upgrading.md says how to name a commit"
            ),
        }
    }

    /// The answers as `key=value`, with `changes` of the same form in the place of older ones.
    pub(crate) fn answers(&self, changes: &[String]) -> Vec<String> {
        let is_changed = |key: &str| changes.iter().any(|change| change.split('=').next() == Some(key));
        let kept = self.answers.iter().filter(|(key, _)| !is_changed(key));
        kept.map(|(key, value)| format!("{key}={value}")).chain(changes.iter().cloned()).collect()
    }
}

/// Adds version and commit of the template to the record that cargo-generate rendered. A template
/// with uncommitted changes has no commit.
pub(crate) fn complete(project: &Path, version: &str, commit: Option<&str>) -> Result<()> {
    let path = project.join(FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("the template has no template/project/{FILE}"))?;
    let commit = commit.map(|commit| format!("commit = \"{commit}\"\n")).unwrap_or_default();
    let name = "\nname = ";
    fs::write(path, text.replacen(name, &format!("\nversion = \"{version}\"\n{commit}{}", &name[1..]), 1))?;
    Ok(())
}

/// The version of the template whose files are in `folder`.
pub(crate) fn version_of_template(folder: &Path) -> Result<String> {
    #[derive(Deserialize)]
    struct Manifest {
        package: Package,
    }
    #[derive(Deserialize)]
    struct Package {
        version: String,
    }
    let manifest: Manifest = toml::from_str(&fs::read_to_string(folder.join("Cargo.toml"))?)?;
    Ok(manifest.package.version)
}
