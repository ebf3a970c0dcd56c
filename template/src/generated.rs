//! What an update does not merge: generated files, which `.ci/regenerate` writes again, and
//! migrations and package version, which belong to the project. [`crate::update`] calls [`keep`] before the merge.
//!
//! Both versions of the template get the project's text of such a file. So the template changes
//! nothing there, and the merge keeps the project's text.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Generated files, and folders of them. `.ci/regenerate` writes each.
pub const GENERATED: [&str; 6] = [
    ".sqlx",
    "Cargo.lock",
    "deploy/rights.txt",
    "docs/openapi.json",
    "docs/settings.md",
    "tests/suite/access/matrix.txt",
];

/// Generated blocks of files, from `<!-- NAME: generated` to `<!-- end of NAME`.
pub const GENERATED_BLOCKS: [(&str, &str); 2] = [("SECURITY.md", "controls"), ("SECURITY.md", "routes")];

/// The project's migrations. Those of the kernel are in its own folder.
const MIGRATIONS: &str = "migrations";

/// Gives `base` and `new`, two rendered versions of the template, the project's text of all files
/// that are not merged. Returns the migrations that only `new` has.
pub(crate) fn keep(project: &Path, base: &Path, new: &Path) -> Result<Vec<String>> {
    let mut migrations = files(new, MIGRATIONS.as_ref())?;
    for migration in files(base, MIGRATIONS.as_ref())? {
        migrations.remove(&migration);
    }
    for path in GENERATED {
        keep_files(project, base, new, path.as_ref(), false)?;
    }
    keep_files(project, base, new, MIGRATIONS.as_ref(), true)?;
    for (path, name) in GENERATED_BLOCKS {
        keep_part(project, base, new, path, |text| block(text, name))?;
    }
    // The package version, which the team counts.
    keep_part(project, base, new, "Cargo.toml", |text| text.lines().find(|line| line.starts_with("version = ")))?;
    Ok(migrations.iter().map(|path| path.display().to_string()).collect())
}

/// Keeps the part of a file that `find` finds.
fn keep_part(project: &Path, base: &Path, new: &Path, path: &str, find: impl Fn(&str) -> Option<&str>) -> Result<()> {
    let text = fs::read_to_string(project.join(path)).unwrap_or_default();
    let Some(kept) = find(&text) else { return Ok(()) };
    for file in [base, new].map(|version| version.join(path)) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if let Some(replaced) = find(&text) {
            fs::write(file, text.replacen(replaced, kept, 1))?;
        }
    }
    Ok(())
}

fn block<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!("<!-- {name}: generated "))?;
    let length = text[start..].find(&format!("<!-- end of {name} "))?;
    Some(&text[start..start + length])
}

/// Keeps the project's state of the files in `path`. If the template adds or deletes a file, the
/// project follows, unless the files are `owned` by the project.
fn keep_files(project: &Path, base: &Path, new: &Path, path: &Path, owned: bool) -> Result<()> {
    let versions = files(base, path)?.into_iter().chain(files(new, path)?);
    for name in versions.collect::<BTreeSet<_>>() {
        let [of_project, of_base, of_new] = [project, base, new].map(|root| root.join(&name));
        let [in_base, in_new] = [of_base.exists(), of_new.exists()];
        if of_project.exists() {
            replace(&of_project, &of_base)?;
            if owned || in_new {
                replace(&of_project, &of_new)?;
            }
        } else {
            if in_base {
                fs::remove_file(of_base)?;
            }
            if in_new && (owned || in_base) {
                fs::remove_file(of_new)?;
            }
        }
    }
    Ok(())
}

fn replace(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file has a folder")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// The files of a file or folder, relative to `root`; none if it does not exist.
fn files(root: &Path, path: &Path) -> Result<BTreeSet<PathBuf>> {
    let full = root.join(path);
    let mut found = BTreeSet::new();
    if full.is_dir() {
        for entry in fs::read_dir(full)? {
            found.append(&mut files(root, &path.join(entry?.file_name()))?);
        }
    } else if full.exists() {
        found.insert(path.to_owned());
    }
    Ok(found)
}
