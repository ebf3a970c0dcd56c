//! The list of controls, `docs/controls.toml`, against the code, the tests and SECURITY.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use config::{Config, File, FileFormat};
use palisade::dev::SOURCES;
use serde::Deserialize;

const LIST: &str = "docs/controls.toml";
/// The folders of kernel and test kit, as [`LIST`] writes them.
const KERNEL: &str = "crates/palisade";
const KIT: &str = "crates/palisade-test";
const SECURITY: &str = "SECURITY.md";
const BEGIN: &str = "<!-- controls: generated from docs/controls.toml -->\n";
const END: &str = "<!-- end of controls -->\n";
const FAMILIES: [&str; 10] = ["THREAT", "AUTHN", "AUTHZ", "INPUT", "CRYPTO", "SECRET", "RATE", "LOG", "FAIL", "SUPPLY"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    control: Vec<Control>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    id: String,
    title: String,
    #[serde(default)]
    homes: Vec<String>,
    #[serde(default)]
    tests: Vec<String>,
    owasp: Vec<String>,
    asvs: Vec<String>,
    state: State,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum State {
    Done,
    Planned,
    Delegated,
}

fn controls() -> Vec<Control> {
    let list = Config::builder().add_source(File::new(LIST, FileFormat::Toml)).build().unwrap();
    list.try_deserialize::<List>().unwrap().control
}

/// The files with tests of each control, by the names of functions: `authn_05_…` proves AUTHN-05,
/// in Rust and in `.ci/secret-scan`.
fn proofs() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    // The macro `control_suite!` contains the tests that it declares.
    let kit = Path::new(palisade_test::SOURCES).join("src/control_suite");
    for folder in [Path::new(SOURCES), &kit, Path::new("src"), Path::new("tests")] {
        collect_proofs(folder, &mut found);
    }
    let script = ".ci/secret-scan";
    let functions = fs::read_to_string(script).unwrap();
    let functions: Vec<String> =
        functions.lines().filter(|line| line.ends_with("() {")).map(|line| format!("fn {line}")).collect();
    add_proofs(script, &functions.join("\n"), &mut found);
    found
}

fn collect_proofs(folder: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_proofs(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            add_proofs(
                &path.display().to_string().replacen(palisade_test::SOURCES, KIT, 1).replacen(SOURCES, KERNEL, 1),
                &fs::read_to_string(&path).unwrap(),
                found,
            );
        }
    }
}

fn add_proofs(file: &str, text: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for name in text.split("fn ").skip(1) {
        let mut parts = name.split('_');
        let (Some(family), Some(number)) = (parts.next().map(str::to_uppercase), parts.next()) else { continue };
        if FAMILIES.contains(&&*family) && number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit()) {
            found.entry(format!("{family}-{number}")).or_default().insert(file.to_owned());
        }
    }
}

/// The table of SECURITY.md.
fn table(controls: &[Control]) -> String {
    let link = |path: &String| format!("[`{path}`]({path})");
    let links = |paths: &[String]| paths.iter().map(link).collect::<Vec<_>>().join(", ");
    let mut table = "| id | control | home | proven by | OWASP, ASVS |\n|---|---|---|---|---|\n".to_owned();
    for control in controls {
        let home = match control.state {
            State::Done => links(&control.homes),
            State::Planned => "planned".to_owned(),
            State::Delegated => "delegated to the platform".to_owned(),
        };
        let sources = [&*control.owasp, &*control.asvs].concat().join(", ");
        let tests = links(&control.tests);
        writeln!(table, "| {} | {} | {home} | {tests} | {sources} |", control.id, control.title).unwrap();
    }
    table
}

#[test]
fn homes_name_their_controls_in_their_headers() {
    let mut faults = Vec::new();
    for control in controls() {
        let words = control.title.split_whitespace().count();
        let homes = control.homes.len();
        let least = usize::from(control.state == State::Done);
        if words > 20 || !(least..=3).contains(&homes) {
            faults.push(format!("{}: {words} words, {homes} homes; limits are 20 and {least} to 3", control.id));
        }
        for home in &control.homes {
            let text = fs::read_to_string(home.replacen(KERNEL, SOURCES, 1)).unwrap_or_default();
            let is_rust = Path::new(home).extension().is_some_and(|extension| extension == "rs");
            let header = text.lines().take_while(|line| !is_rust || line.starts_with("//!"));
            if !header.into_iter().any(|line| line.contains(&control.id)) {
                faults.push(format!("{home}: add {} to its header, or remove the file from {LIST}", control.id));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn list_of_controls_matches_the_names_of_tests() {
    let mut proofs = proofs();
    let mut faults = Vec::new();
    for control in controls() {
        let proven = proofs.remove(&control.id).unwrap_or_default();
        if control.state == State::Done && proven.is_empty() {
            faults.push(format!("{}: no test is named after it", control.id));
        }
        for missing in control.tests.iter().filter(|test| !proven.contains(*test)) {
            faults.push(format!("{}: {missing} has no test named after it", control.id));
        }
        let is_listed = |file: &&String| control.tests.contains(file) || control.homes.contains(file);
        for unlisted in proven.iter().filter(|file| !is_listed(file)) {
            faults.push(format!("{}: add {unlisted} to its tests", control.id));
        }
    }
    for (id, files) in proofs {
        faults.push(format!("{id} is not in the list, but in {files:?}"));
    }
    assert!(faults.is_empty(), "{LIST} differs from the names of tests:\n{}", faults.join("\n"));
}

#[test]
fn published_table_of_controls_is_current() {
    let text = fs::read_to_string(SECURITY).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("SECURITY.md has the marker of the table");
    let (published, after) = rest.split_once(END).expect("SECURITY.md has the marker of the table's end");
    let table = table(&controls());
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(SECURITY, [before, BEGIN, &table, END, after].concat()).unwrap();
        return;
    }
    let missing = table.lines().find(|line| !published.lines().any(|row| row == *line));
    assert!(
        published == table,
        "the table of {SECURITY} is not current, first at {missing:?}\n\
         `UPDATE_SNAPSHOTS=1 cargo test published_table_of_controls` writes it"
    );
}
