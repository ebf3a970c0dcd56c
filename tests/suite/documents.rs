//! What the documents say is so.

use std::{collections::BTreeSet, fs, path::Path};

use service::authz::matrix;

const SECURITY: &str = "SECURITY.md";
/// A heading of the checklist's ids, such as `AUTHN`.
const FAMILIES: [&str; 10] = ["THREAT", "AUTHN", "AUTHZ", "INPUT", "CRYPTO", "SECRET", "RATE", "LOG", "FAIL", "SUPPLY"];

struct Control {
    id: String,
    homes: Vec<String>,
}

/// The rows of the table of controls: id, control, where it is, what proves it.
fn controls() -> Vec<Control> {
    let text = fs::read_to_string(SECURITY).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, id, _, home, ..] = cells.as_slice() else { return None };
        let (family, number) = id.split_once('-')?;
        let is_id = FAMILIES.contains(&family) && number.len() == 2;
        let homes = home.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        is_id.then(|| Control { id: (*id).to_owned(), homes })
    });
    rows.collect()
}

fn sources(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The ids in the names of the tests: `fn authn_05_…` proves AUTHN-05, and so does a function of a script that
/// `.ci/run` calls.
fn proven() -> BTreeSet<String> {
    let mut text = String::new();
    sources(Path::new("tests"), &mut text);
    sources(Path::new("src"), &mut text);
    let script = fs::read_to_string(".ci/secret-scan").unwrap();
    let functions = script.lines().filter(|line| line.ends_with("() {"));
    text.extend(functions.map(|line| format!("fn {line}\n")));
    let names = text.split("fn ").filter_map(|rest| {
        let mut parts = rest.split('_');
        let (family, number) = (parts.next()?.to_uppercase(), parts.next()?);
        (FAMILIES.contains(&family.as_str()) && number.len() == 2).then(|| format!("{family}-{number}"))
    });
    names.collect()
}

#[test]
fn every_control_that_is_claimed_has_a_home_and_a_test_and_the_other_way_round() {
    let controls = controls();
    assert!(!controls.is_empty());
    let claimed: BTreeSet<String> = controls.iter().map(|control| control.id.clone()).collect();
    assert_eq!(
        claimed,
        proven(),
        "\nleft: the controls in {SECURITY}; right: the ids in the names of tests.\n\
         A control without a test is not proven: write one named after it. A test without a row is a\n\
         control nobody finds: add the row.\n"
    );
    for control in controls {
        assert!(!control.homes.is_empty(), "{} has no home in {SECURITY}", control.id);
        for home in control.homes {
            assert!(Path::new(&home).exists(), "{}: there is no {home}", control.id);
        }
    }
}

#[test]
fn threat_02_the_published_matrix_is_current() {
    let text = fs::read_to_string(SECURITY).unwrap();
    assert!(
        text.contains(&matrix::markdown()),
        "the route matrix in {SECURITY} is not current: replace it by what \
         `cargo run --features dev -- routes --markdown` prints, and review the difference"
    );
}

#[test]
fn every_dependency_is_justified() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let justified = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let lines = manifest.lines().skip_while(|line| !line.starts_with("[dependencies]"));
    let lines = lines.take_while(|line| !line.starts_with("[[bench") && !line.starts_with("[profile"));
    let names = lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    for name in names.filter(|name| *name != env!("CARGO_PKG_NAME")) {
        assert!(
            justified.contains(&format!("| `{name}` |")),
            "{name} has no row in ARCHITECTURE.md: say in one line what it is for"
        );
    }
}
