//! The lists of controls, `controls.toml`, against code and tests.
//!
//! The kernel has a list and each service another. A service's list has its own controls, and adds
//! its homes and tests to those of the kernel. A test named `authn_05_…` proves AUTHN-05.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use config::{Config, File, FileFormat};
use palisade::dev::SOURCES;
use serde::Deserialize;

/// The kernel's folder, as the lists write it. The kit's begins with the same.
const KERNEL: &str = "crates/palisade";
const FAMILIES: [&str; 10] = ["THREAT", "AUTHN", "AUTHZ", "INPUT", "CRYPTO", "SECRET", "RATE", "LOG", "FAIL", "SUPPLY"];

/// A list of controls.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controls {
    control: Vec<Control>,
}

/// What a list says about a control.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    id: String,
    /// Absent in a service's addition to a control of the kernel.
    title: Option<String>,
    #[serde(default)]
    homes: Vec<String>,
    #[serde(default)]
    tests: Vec<String>,
    #[serde(default)]
    owasp: Vec<String>,
    #[serde(default)]
    asvs: Vec<String>,
    state: Option<State>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum State {
    Done,
    Planned,
    Delegated,
}

/// The path on this machine: a project may take the kernel from elsewhere.
fn located(path: &str) -> String {
    path.replacen(KERNEL, SOURCES, 1)
}

impl Controls {
    /// The kernel's list.
    pub fn of_kernel() -> Self {
        Self::read(&format!("{SOURCES}/controls.toml"))
    }

    /// The list of the service in the current folder.
    pub fn of_service() -> Self {
        Self::read("controls.toml")
    }

    fn read(file: &str) -> Self {
        let list = Config::builder().add_source(File::new(file, FileFormat::Toml)).build().unwrap();
        list.try_deserialize().unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Compares the list with the names of tests in these files and folders. Each fault says what to
    /// change.
    pub fn faults(&self, sources: &[&str]) -> Vec<String> {
        let mut proofs = BTreeMap::new();
        for source in sources {
            collect_proofs(Path::new(&located(source)), &mut proofs);
        }
        let mut faults = Vec::new();
        for control in &self.control {
            control.check_homes(&mut faults);
            control.check_tests(&proofs.remove(&control.id).unwrap_or_default(), &mut faults);
        }
        for (id, files) in proofs {
            faults.push(format!("{id} is not in the list, but in {files:?}"));
        }
        faults
    }

    /// Adds the homes and tests of a service, and its own controls at the end of their families.
    ///
    /// # Panics
    /// An addition states what only the list of the control itself states.
    #[must_use]
    pub fn join(mut self, service: &Self) -> Self {
        for control in &service.control {
            if let Some(known) = self.control.iter_mut().find(|known| known.id == control.id) {
                let is_addition = control.title.is_none() && control.state.is_none();
                assert!(is_addition, "{}: the kernel's list has its title and state", control.id);
                known.homes.extend(control.homes.iter().cloned());
                known.tests.extend(control.tests.iter().cloned());
            } else {
                self.control.push(control.clone());
            }
        }
        let family = |id: &str| FAMILIES.iter().position(|family| id.starts_with(family));
        self.control.sort_by(|a, b| (family(&a.id), &a.id).cmp(&(family(&b.id), &b.id)));
        self
    }

    /// The table of SECURITY.md.
    pub fn table(&self) -> String {
        let link = |path: &String| format!("[`{path}`]({path})");
        let links = |paths: &[String]| paths.iter().map(link).collect::<Vec<_>>().join(", ");
        let mut table = "| id | control | home | proven by | OWASP, ASVS |\n|---|---|---|---|---|\n".to_owned();
        for control in &self.control {
            let home = match control.state {
                Some(State::Planned) => "planned".to_owned(),
                Some(State::Delegated) => "delegated to the platform".to_owned(),
                _ => links(&control.homes),
            };
            let title = control.title.as_deref().unwrap_or_else(|| panic!("{} has no title", control.id));
            let sources = [&*control.owasp, &*control.asvs].concat().join(", ");
            writeln!(table, "| {} | {title} | {home} | {} | {sources} |", control.id, links(&control.tests)).unwrap();
        }
        table
    }
}

impl Control {
    /// At most three homes, each with the id in its header.
    fn check_homes(&self, faults: &mut Vec<String>) {
        let words = self.title.as_deref().unwrap_or_default().split_whitespace().count();
        let homes = self.homes.len();
        let least = usize::from(self.state == Some(State::Done));
        if words > 20 || !(least..=3).contains(&homes) {
            faults.push(format!("{}: {words} words, {homes} homes; limits are 20 and {least} to 3", self.id));
        }
        for home in &self.homes {
            let text = fs::read_to_string(located(home)).unwrap_or_default();
            let is_rust = Path::new(home).extension().is_some_and(|extension| extension == "rs");
            let mut header = text.lines().take_while(|line| !is_rust || line.starts_with("//!"));
            if !header.any(|line| line.contains(&self.id)) {
                faults.push(format!("{home}: add {} to its header, or remove the file from the list", self.id));
            }
        }
    }

    /// The listed tests are those named after the control.
    fn check_tests(&self, proven: &BTreeSet<String>, faults: &mut Vec<String>) {
        if self.state == Some(State::Done) && proven.is_empty() {
            faults.push(format!("{}: no test is named after it", self.id));
        }
        for missing in self.tests.iter().filter(|test| !proven.contains(*test)) {
            faults.push(format!("{}: {missing} has no test named after it", self.id));
        }
        let is_listed = |file: &&String| self.tests.contains(file) || self.homes.contains(file);
        for unlisted in proven.iter().filter(|file| !is_listed(file)) {
            faults.push(format!("{}: add {unlisted} to its tests", self.id));
        }
    }
}

/// The files with tests of each control, in Rust and in shell scripts.
fn collect_proofs(path: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten().filter(|entry| entry.file_name() != "target") {
            collect_proofs(&entry.path(), found);
        }
        return;
    }
    let is_rust = path.extension().is_some_and(|extension| extension == "rs");
    // The lists name scripts without an extension, which have no other folder.
    if !is_rust && path.extension().is_some() {
        return;
    }
    let Ok(text) = fs::read_to_string(path) else { return };
    let functions: Vec<&str> = if is_rust {
        text.split("fn ").skip(1).collect()
    } else {
        text.lines().filter(|line| line.ends_with("() {")).collect()
    };
    let file = path.display().to_string().replacen(SOURCES, KERNEL, 1);
    for function in functions {
        let mut parts = function.split('_');
        let (Some(family), Some(number)) = (parts.next().map(str::to_uppercase), parts.next()) else { continue };
        if FAMILIES.contains(&&*family) && number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit()) {
            found.entry(format!("{family}-{number}")).or_default().insert(file.clone());
        }
    }
}
