//! Tests of generated services: the answers are filled in, no trace of this repository is left, the
//! service's own suite passes, and `cargo dev` runs.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use template::{Scaffold, scaffold};

/// Texts of this repository that no generated file may contain, in lower case.
const TRACES: [&str; 3] = ["palisade", "{%", "cargo scaffold"];

fn generate(name: &str, answers: &[&str]) -> PathBuf {
    // Inside `target`, and thus inside the repository, cargo would treat it as part of the
    // workspace.
    let destination = std::env::temp_dir().join("scaffold-test");
    let _ = fs::remove_dir_all(destination.join(name));
    scaffold(Scaffold {
        name: name.to_owned(),
        destination: Some(destination),
        answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
        silent: true,
        git: true,
    })
    .expect("generates")
}

/// Cargo in the project, as a user runs it, but with this repository's target folder, which already
/// has the dependencies.
fn cargo(project: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    cargo.current_dir(project).env("CARGO_TARGET_DIR", target);
    // Cargo has set these variables for this test.
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST"))
    {
        cargo.env_remove(name);
    }
    cargo
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn generated_service_has_its_answers_and_passes_its_suite() {
    let project = generate(
        "my-billing",
        &[
            "description=Billing for Example Ltd",
            "author=Example Ltd <dev@example.com>",
            "issuer=https://id.example.com/realms/main",
        ],
    );
    for file in files(&project) {
        let text = String::from_utf8_lossy(&fs::read(&file).expect("readable")).to_lowercase();
        for trace in TRACES {
            assert!(!text.contains(trace), "{} contains `{trace}`", file.display());
        }
    }
    for excluded in [
        "template",
        "cargo-generate.toml",
        "LICENSE-MIT",
        ".git/refs/heads/main",
        ".git/refs/heads/master",
        ".dev",
        "target",
    ] {
        assert!(!project.join(excluded).exists(), "{excluded} was copied");
    }
    assert!(project.join(".git/HEAD").exists(), "no git repository was initialised");
    let manifest = fs::read_to_string(project.join("Cargo.toml")).expect("a manifest");
    for line in
        ["name = \"my-billing\"", "description = \"Billing for Example Ltd\"", "\"Example Ltd <dev@example.com>\""]
    {
        assert!(manifest.contains(line), "{manifest}");
    }
    assert!(!manifest.contains("[workspace]"), "{manifest}");
    let example = fs::read_to_string(project.join("deploy/example.env")).expect("an example");
    assert!(example.contains("APP_OIDC__ISSUER=https://id.example.com/realms/main"), "{example}");
    assert!(example.contains("APP_OIDC__AUDIENCE=api://my-billing"), "{example}");

    let suite = cargo(&project).args(["test", "--locked", "--offline"]).status().expect("cargo runs");
    assert!(suite.success(), "the generated suite fails");
    assert_dev_runs(&project);
}

/// Runs `cargo dev` until it is ready, then interrupts it as Ctrl-C does.
fn assert_dev_runs(project: &Path) {
    let mut dev = cargo(project)
        .args(["--locked", "--offline", "dev", "--port", "0", "--issuer-port", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("cargo runs");
    let mut lines = BufReader::new(dev.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("Ready in ")), "`cargo dev` ended before it was ready");
    let interrupt = Command::new("kill").args(["-INT", &dev.id().to_string()]).status().expect("kill runs");
    assert!(interrupt.success());
    // Reads on, so that a full pipe does not block it while it stops.
    lines.for_each(drop);
    dev.wait().expect("it ends");
    assert!(project.join(".dev/tokens/acme-sales").exists());
}

#[test]
fn invalid_names_are_rejected() {
    for name in ["", "My-Billing", "1st", "a_b", "a b", "../evil", "service", "tokio", "url", &"a".repeat(51)] {
        let result = scaffold(Scaffold {
            name: name.to_owned(),
            destination: Some(std::env::temp_dir().join("scaffold-rejected")),
            answers: Vec::new(),
            silent: true,
            git: false,
        });
        assert!(result.is_err(), "{name:?}");
    }
}
