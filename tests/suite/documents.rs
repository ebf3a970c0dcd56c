//! Documents that must match the code: the route matrix in SECURITY.md (THREAT-02) and the table of
//! dependencies in ARCHITECTURE.md.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use palisade::dev::SOURCES;

use crate::support::MATRIX;

const SECURITY: &str = "SECURITY.md";
#[test]
fn threat_02_published_route_matrix_is_current() {
    let text = fs::read_to_string(SECURITY).unwrap();
    assert!(
        text.contains(&MATRIX.markdown()),
        "the route matrix in {SECURITY} is not current: replace it by what \
         `cargo run --features dev -- routes --markdown` prints, and review the difference"
    );
}

#[test]
fn each_dependency_has_a_reason_in_the_architecture() {
    let folders = [".".to_owned(), SOURCES.to_owned(), format!("{SOURCES}-test")];
    let manifests = folders.map(|folder| fs::read_to_string(format!("{folder}/Cargo.toml")).unwrap());
    let justified = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let lines = manifests.iter().flat_map(|manifest| {
        let lines = manifest.lines().skip_while(|line| !line.starts_with("[dependencies]"));
        lines.take_while(|line| !["[[bench", "[lints", "[profile"].iter().any(|end| line.starts_with(end)))
    });
    let names: Vec<&str> = lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names.into_iter().filter(|name| ![env!("CARGO_PKG_NAME"), "palisade", "palisade-test"].contains(name)) {
        assert!(
            justified.contains(&format!("| `{name}` |")),
            "{name} has no row in ARCHITECTURE.md: say in one line what it is for"
        );
    }
}

/// `.ci/run` runs it on the whole tree.
#[test]
fn the_prose_check_finds_planted_lines_and_leaves_strings_alone() {
    let folder = tempfile_folder();
    for (name, text, fault) in [
        ("plain.md", "A caller sends a request.\n", None),
        ("words.md", "The key belongs to nobody.\n", Some("nobody")),
        ("wide.md", &*format!("{}\n", "wide ".repeat(21)), Some("columns")),
        ("table.md", &*format!("| {} |\n", "wide ".repeat(21)), None),
        ("string.rs", "let user = \"nobody\"; // `nobody` is a user\n", None),
        ("comment.rs", "// For whom it is.\n", Some("whom")),
        ("name.rs", "fn whoever_asks() {}\n", Some("whoever")),
    ] {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        let checked = Command::new(".ci/prose").arg(&file).output().unwrap();
        let output = String::from_utf8(checked.stdout).unwrap();
        assert_eq!(checked.status.success(), fault.is_none(), "{name}: {output}");
        assert!(output.contains(fault.unwrap_or_default()), "{name}: {output}");
    }
    fs::remove_dir_all(folder).unwrap();
}

fn tempfile_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("prose-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}
