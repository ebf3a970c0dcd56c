//! What `.dockerignore` sends to the build of the image (SUPPLY-03): each file that the build needs.
//! Without this test, only a build of the image would find a missing file.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

/// Copies what `.dockerignore` sends to the build: the files after `!`, without those after `**/`.
fn send(from: &Path, to: &Path, left_out: &[&str]) {
    let name = from.file_name().unwrap().to_str().unwrap();
    let matches = |pattern: &&str| match pattern.strip_prefix('*') {
        Some(ending) => name.ends_with(ending),
        None => name == *pattern,
    };
    if left_out.iter().any(matches) || !from.exists() {
        return;
    }
    if from.is_dir() {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            send(&path, &to.join(path.file_name().unwrap()), left_out);
        }
        return;
    }
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

/// The files that the sources in a folder embed and that do not exist.
fn missing_embedded_files(folder: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    for path in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            missing.extend(missing_embedded_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for name in ["include_str!(\"", "include_bytes!(\""].iter().flat_map(|start| text.split(start).skip(1)) {
                let name = name.split('"').next().unwrap();
                if !folder.join(name).exists() {
                    missing.push(format!("{}: {name}", path.display()));
                }
            }
        }
    }
    missing
}

/// Each manifest of the workspace, and each source file without which cargo refuses its manifest:
/// those of all targets, but of tests only if the manifest names them.
fn files_of_the_workspace() -> Vec<String> {
    let arguments = ["metadata", "--no-deps", "--offline", "--locked", "--format-version=1"];
    let output = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut files = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = package["manifest_path"].as_str().unwrap();
        files.push(manifest);
        let text = fs::read_to_string(manifest).unwrap();
        let is_needed = |target: &&Value| {
            target["kind"] != json!(["test"]) || text.contains(&format!("[[test]]\nname = {}\n", target["name"]))
        };
        let targets = package["targets"].as_array().unwrap().iter().filter(is_needed);
        files.extend(targets.map(|target| target["src_path"].as_str().unwrap()));
    }
    let root = format!("{}/", metadata["workspace_root"].as_str().unwrap());
    files.into_iter().map(|file| file.strip_prefix(&root).unwrap().to_owned()).collect()
}

#[test]
fn supply_03_image_build_gets_every_file_that_it_needs() {
    let ignored = fs::read_to_string(".dockerignore").unwrap();
    let mut lines = ignored.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"), "only listed files reach the build");
    let (sent, left_out): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with('!'));
    let left_out: Vec<_> = left_out.iter().map(|line| line.strip_prefix("**/").unwrap()).collect();
    let context = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build-context");
    let _ = fs::remove_dir_all(&context);
    for path in sent.iter().map(|line| Path::new(&line[1..])) {
        send(path, &context.join(path), &left_out);
    }
    for file in files_of_the_workspace() {
        assert!(context.join(&file).exists(), "{file} does not reach the build");
    }
    for folder in ["src", "crates/palisade/src"] {
        assert_eq!(missing_embedded_files(&context.join(folder)), Vec::<String>::new());
    }
    for needed in [".ci/build-release", ".cargo/config.toml", ".sqlx", "build.rs", "migrations", "src/main.rs"] {
        assert!(context.join(needed).exists(), "{needed} does not reach the build");
    }
}
