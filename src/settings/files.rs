//! Settings whose values are in files of their own, named by `APP_…_FILE` (SECRET-02).

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    Fault,
    reader::{is_ours, variable},
};

/// The files, by the variable of the setting. Each is read when its setting is asked for, once: what a command has no use
/// for, it does not read.
#[derive(Default)]
pub(super) struct Files(BTreeMap<String, One>);

struct One {
    path: PathBuf,
    text: Option<Zeroizing<String>>,
}

impl Files {
    /// Takes the files out of the variables, and leaves an empty value in place of each, so that its setting is known to be
    /// there. Other programs' variables are dropped.
    pub(super) fn take(
        variables: BTreeMap<String, String>,
        faults: &mut Vec<Fault>,
    ) -> (Self, BTreeMap<String, String>) {
        let (mut files, mut values) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in variables.into_iter().filter(|(name, _)| is_ours(name)) {
            match name.strip_suffix("_FILE") {
                None => drop(values.insert(name, value)),
                Some(target) => drop(files.insert(target.to_owned(), One { path: value.into(), text: None })),
            }
        }
        for target in files.keys() {
            if values.insert(target.clone(), String::new()).is_some() {
                let message = "is set both directly and by a file".to_owned();
                faults.push(Fault { variable: format!("{target}_FILE"), message });
            }
        }
        (Self(files), values)
    }

    /// The content of the file of a setting, without the end of its last line; `None` if there is no file.
    pub(super) fn text(&mut self, key: &str) -> Option<io::Result<Zeroizing<String>>> {
        let one = self.0.get_mut(&variable(key))?;
        if one.text.is_none() {
            let text = match std::fs::read_to_string(&one.path) {
                Ok(text) => Zeroizing::new(text),
                Err(error) => return Some(Err(error)),
            };
            one.text = Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()));
        }
        one.text.clone().map(Ok)
    }

    /// Where the file of a setting is.
    pub(super) fn path(&self, key: &str) -> Option<&Path> {
        self.0.get(&variable(key)).map(|one| one.path.as_path())
    }

    /// Those that were read.
    pub(super) fn read(&self) -> impl Iterator<Item = PathBuf> {
        self.0.values().filter(|one| one.text.is_some()).map(|one| one.path.clone())
    }
}
