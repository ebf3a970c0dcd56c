//! Misuse that must not compile (AUTHZ-04): each file of `tests/misuse` contains one misuse, and
//! its first line the only compiler error that it must cause. `correct_use.rs` has no misuse and
//! must compile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use serde_json::Value;

/// The folder of this test program and of the library that it was built with.
fn artifacts() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// A library that this program was built with: the latest one, since cargo builds it first.
fn library(name: &str) -> PathBuf {
    let prefix = format!("lib{name}-");
    let libraries = fs::read_dir(artifacts()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(&prefix) && name.ends_with(".rlib")
    });
    let built = |path: &PathBuf| path.metadata().and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    libraries.max_by_key(built).expect("the library is in the folder of the test program")
}

/// The compiler's errors about a file, each as `code: message: labels`.
fn errors(file: &Path, libraries: &[(&str, PathBuf)]) -> Vec<String> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-type=bin", "--emit=metadata", "--error-format=json", "-o"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join(file.with_extension("rmeta").file_name().unwrap()))
        .args(libraries.iter().flat_map(|(name, path)| ["--extern".to_owned(), format!("{name}={}", path.display())]))
        .arg("-L")
        .arg(format!("dependency={}", artifacts().display()))
        .arg(file)
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stderr).unwrap();
    let errors = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let errors = errors.filter(|line| line["level"] == "error" && !line["code"].is_null()).map(|line| {
        let labels = line["spans"].as_array().unwrap().iter().filter_map(|span| span["label"].as_str());
        let labels: Vec<&str> = labels.collect();
        format!(
            "{}: {}: {}",
            line["code"]["code"].as_str().unwrap(),
            line["message"].as_str().unwrap(),
            labels.join("; ")
        )
    });
    let errors: Vec<String> = errors.collect();
    assert_eq!(errors.is_empty(), output.status.success(), "{}: {lines}", file.display());
    errors
}

#[test]
fn authz_04_each_misuse_fails_to_compile() {
    let libraries = ["palisade", "sample"].map(|name| (name, library(name)));
    let mut files: Vec<PathBuf> = fs::read_dir("tests/misuse").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10, "{files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let expected =
            source.lines().next().and_then(|line| line.strip_prefix("//! ")).expect("the first line is the error");
        let found = errors(&file, &libraries);
        let as_expected = match expected.split_once(": ") {
            Some((code, message)) => {
                !found.is_empty() && found.iter().all(|error| error.starts_with(code) && error.contains(message))
            }
            None => expected == "compiles" && found.is_empty(),
        };
        if !as_expected {
            wrong.push(format!("{} must cause {expected:?} and nothing else, but caused {found:#?}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
