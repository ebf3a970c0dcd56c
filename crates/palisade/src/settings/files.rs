//! Settings whose value is in a file, named by `APP_…_FILE` (SECRET-02).

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{Fault, reader::is_setting, row::SettingName};

/// The files by the variable of their setting. A file is read once, when its setting is read: a
/// command does not read secrets that it does not use.
#[derive(Default)]
pub(super) struct Files(BTreeMap<String, ValueFile>);

struct ValueFile {
    path: PathBuf,
    text: Option<Zeroizing<String>>,
}

impl Files {
    /// Removes the `_FILE` variables and puts an empty value in place of each, so that its setting
    /// counts as present. Drops variables of other programs.
    pub(super) fn extract(
        variables: BTreeMap<String, String>,
        faults: &mut Vec<Fault>,
    ) -> (Self, BTreeMap<String, String>) {
        let mut files = BTreeMap::new();
        let mut values = BTreeMap::new();
        for (name, value) in variables.into_iter().filter(|(name, _)| is_setting(name)) {
            match name.strip_suffix("_FILE") {
                None => drop(values.insert(name, value)),
                Some(target) => drop(files.insert(target.to_owned(), ValueFile { path: value.into(), text: None })),
            }
        }
        for target in files.keys() {
            if values.insert(target.clone(), String::new()).is_some() {
                let message = format!("is set both directly and by a file; remove this or {target}");
                faults.push(Fault { variable: format!("{target}_FILE"), message });
            }
        }
        (Self(files), values)
    }

    /// The content of a setting's file without the final line break; `None` if it has no file.
    pub(super) fn text(&mut self, setting: &SettingName) -> Option<io::Result<Zeroizing<String>>> {
        let file = self.0.get_mut(&setting.variable())?;
        if file.text.is_none() {
            let text = match std::fs::read_to_string(&file.path) {
                Ok(text) => Zeroizing::new(text),
                Err(error) => return Some(Err(error)),
            };
            file.text = Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()));
        }
        file.text.clone().map(Ok)
    }

    /// The path of a setting's file.
    pub(super) fn path(&self, setting: &SettingName) -> Option<&Path> {
        self.0.get(&setting.variable()).map(|file| file.path.as_path())
    }

    /// The files that were read.
    pub(super) fn read(&self) -> impl Iterator<Item = PathBuf> {
        self.0.values().filter(|file| file.text.is_some()).map(|file| file.path.clone())
    }
}
