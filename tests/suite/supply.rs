//! Manifests and workflows against the rules of the supply chain (SUPPLY-01, SUPPLY-02).
//!
//! `.ci/supply-chain` compares packages with `deny.toml` and runs the linters of workflows. The rules
//! here need no tool and know no exception.

use std::{fs, path::Path};

use palisade::dev::SOURCES;

/// The project's workflows; in the template also those of new projects.
const FOLDERS: [&str; 2] = [".github/workflows", "template/project/.github/workflows"];

#[test]
fn supply_01_every_package_forbids_unsafe_code() {
    let parts = ["", "-test", "/tests/sample"].map(|part| format!("{SOURCES}{part}"));
    for folder in ["./".to_owned(), "./template".to_owned()].into_iter().chain(parts) {
        let manifest = Path::new(&folder).join("Cargo.toml");
        if let Ok(text) = fs::read_to_string(&manifest) {
            assert!(text.contains("\n[lints.rust]\nunsafe_code = \"forbid\"\n"), "{}", manifest.display());
        }
    }
}

#[test]
fn supply_02_workflows_pin_actions_and_grant_the_least() {
    let files: Vec<_> = FOLDERS.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten().collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let text = fs::read_to_string(file.path()).unwrap();
        assert_eq!(faults(&text), Vec::<String>::new(), "{}", file.path().display());
    }
}

#[test]
fn supply_02_each_fault_of_a_workflow_is_found() {
    let good = fs::read_to_string(".github/workflows/release.yml").unwrap();
    let digest = good.split_once("actions/attest@").and_then(|(_, rest)| rest.get(..40)).unwrap();
    for (from, to, expected) in [
        (digest, "v4", "not pinned by digest: actions/attest@v4 # v"),
        (digest, "59d89421", "not pinned by digest: actions/attest@59d89421 # v"),
        (digest, "${{ vars.ATTEST }}", "not pinned by digest: actions/attest@${{"),
        ("\npermissions: {}\n", "\npermissions:\n  contents: write\n", "no line `permissions: {}`"),
        ("\npermissions: {}\n", "\n", "no line `permissions: {}`"),
        ("\nconcurrency:\n", "\nlater:\n", "no line `concurrency:`"),
        ("    timeout-minutes: 15\n", "", "job publish has no timeout-minutes"),
        ("    permissions:\n      contents: read\n", "", "job build has no permissions"),
        ("    permissions:\n      contents: read\n", "    permissions: write-all\n", "`write-all`"),
        ("  push:\n", "  pull_request_target:\n", "`pull_request_target`"),
        ("$GITHUB_REF_NAME", "${{ github.event.head_commit.message }}", "an expression in a script: "),
        (".ci/supply-chain advisories", "|\n          echo ${{ github.ref }}", "an expression in a script: "),
    ] {
        assert!(good.contains(from), "{from}");
        let found = faults(&good.replacen(from, to, 1));
        assert!(!found.is_empty() && found.iter().all(|fault| fault.starts_with(expected)), "{expected}: {found:?}");
    }
}

/// What a workflow does against the rules.
fn faults(text: &str) -> Vec<String> {
    let (head, jobs) = text.split_once("\njobs:\n").expect("jobs");
    // A job gets no permission that it does not name, and a second run does not meet the first.
    let mut faults: Vec<_> = ["permissions: {}", "concurrency:"]
        .into_iter()
        .filter(|line| !head.lines().any(|given| given == *line))
        .map(|line| format!("no line `{line}`"))
        .collect();
    // The first two run with this repository's secrets for the pull request of another one.
    let forbidden = ["pull_request_target", "workflow_run", "write-all", "read-all"];
    faults.extend(forbidden.iter().filter(|word| text.contains(**word)).map(|word| format!("`{word}`")));
    // Indentation of the key of the script that contains the line.
    let mut script = None;
    let mut job_keys: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in jobs.lines().filter(|line| !line.trim().is_empty()) {
        let key = line.trim_start().trim_start_matches("- ");
        let indent = line.len() - key.len();
        match (indent, job_keys.last_mut()) {
            (2, _) if !key.starts_with('#') => job_keys.push((key.trim_end_matches(':'), Vec::new())),
            (4, Some((_, keys))) => keys.push(key.split(':').next().unwrap_or_default()),
            _ => {}
        }
        script = script.filter(|start| indent > *start);
        if key.starts_with("run:") {
            script = Some(indent);
        }
        // A script gets values from its environment, so that none of them is code.
        if script.is_some() && line.contains("${{") {
            faults.push(format!("an expression in a script: {key}"));
        }
        if let Some(action) = key.strip_prefix("uses:").map(str::trim).filter(|action| !is_pinned(action)) {
            faults.push(format!("not pinned by digest: {action}"));
        }
    }
    for (job, keys) in job_keys {
        let missing = ["permissions", "timeout-minutes"].into_iter().filter(|key| !keys.contains(key));
        faults.extend(missing.map(|key| format!("job {job} has no {key}")));
    }
    faults
}

/// Whether the action is the digest of a commit, with the version for the reader.
fn is_pinned(action: &str) -> bool {
    let revision = action.split_once('@').and_then(|(_, revision)| revision.split_once(" # v"));
    revision.is_some_and(|(digest, _)| digest.len() == 40 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
}
