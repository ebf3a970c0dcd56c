//! Fetches the provider, once per lock file, and says aloud what becomes of the interop tests.
//!
//! Without Node.js, or where npm cannot fetch, they are left out; with `TEST_INTEROP=required`, and wherever `CI` is set, they fail
//! then. `TEST_INTEROP=off` leaves them out in any case.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use service::crypto;

use crate::support::Wanted;

const MANIFEST: &str = include_str!("../../interop/package.json");
const LOCK: &str = include_str!("../../interop/package-lock.json");

const WANTED: Wanted = Wanted { topic: "provider", variable: "TEST_INTEROP", tests: "the interop tests" };

static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Where the provider can run, or `None` if the interop tests are to be left out.
pub fn folder() -> Option<&'static Path> {
    WANTED.get(FOLDER.get_or_init(|| WANTED.look(find))).map(PathBuf::as_path)
}

/// At the start of a run of the whole suite, so that what is left out stands among its first lines. A run of
/// some tests fetches nothing before one of them needs it.
pub fn begin() {
    if std::env::args().skip(1).all(|argument| argument.starts_with('-')) {
        std::thread::spawn(|| FOLDER.get_or_init(|| WANTED.look(find)));
    }
}

fn find() -> Result<(String, PathBuf), String> {
    let version = node()?;
    let folder = fetch(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    Ok((format!("oidc-provider, on Node.js {version}"), folder))
}

/// The version of a Node.js that has what the provider calls.
fn node() -> Result<String, String> {
    let probe = "URL.parse && require('node:crypto').hash ? process.version : ''";
    let output =
        Command::new("node").args(["--print", probe]).output().map_err(|error| format!("no Node.js: {error}"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if version.is_empty() { Err("Node.js is too old, take 22 or later".to_owned()) } else { Ok(version) }
}

/// In a folder named after the lock file. One process at a time, and an attempt that was broken off starts over.
fn fetch(target: &Path) -> Result<PathBuf, String> {
    let digest = crypto::hex(&crypto::sha256(LOCK.as_bytes()));
    let folder = target.join(format!("interop-{digest:.12}"));
    let turn = File::create(folder.with_extension("lock")).unwrap();
    turn.lock().unwrap();
    let complete = folder.join("complete");
    if !complete.exists() {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("package.json"), MANIFEST).unwrap();
        fs::write(folder.join("package-lock.json"), LOCK).unwrap();
        npm_ci(&folder)?;
        fs::write(&complete, "").unwrap();
    }
    Ok(folder)
}

fn npm_ci(folder: &Path) -> Result<(), String> {
    WANTED.announce("fetching oidc-provider by npm, once");
    // Whoever is offline should not wait for minutes to hear of it.
    let impatient = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=20000"];
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .args(impatient)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("no npm: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("npm error ")).take(3).collect();
    Err(format!("npm ci failed: {}", errors.join("; ")))
}
