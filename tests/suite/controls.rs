//! The list of controls, `controls.toml`, against code and tests, and the table in SECURITY.md, which
//! joins it with the kernel's.

use std::fs;

use palisade_test::Controls;

const SECURITY: &str = "SECURITY.md";
const BEGIN: &str = "<!-- controls: generated from controls.toml -->\n";
const END: &str = "<!-- end of controls -->\n";

#[test]
fn list_of_controls_matches_homes_and_tests() {
    let faults = Controls::of_service().faults(&["src", "tests", ".ci"]);
    assert!(faults.is_empty(), "controls.toml differs from homes and tests:\n{}", faults.join("\n"));
}

#[test]
fn published_table_of_controls_is_current() {
    let text = fs::read_to_string(SECURITY).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("SECURITY.md has the marker of the table");
    let (published, after) = rest.split_once(END).expect("SECURITY.md has the marker of the table's end");
    let controls = Controls::of_kernel().join(&Controls::of_service()).table();
    let table =
        format!("\nControls of this service and of version {} of the kernel:\n\n{controls}\n", palisade::VERSION);
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
