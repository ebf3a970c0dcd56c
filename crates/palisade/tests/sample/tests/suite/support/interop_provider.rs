//! The npm package `oidc-provider` for the interop tests, fetched by npm once per lock file.
//!
//! Without Node.js 22 or later, or if npm cannot fetch, the interop tests are skipped;
//! `TEST_INTEROP=required` or a set `CI` makes that a failure. `TEST_INTEROP=off` always skips
//! them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use palisade::crypto;

use super::OptionalTool;

const MANIFEST: &str = include_str!("../../interop/package.json");
const LOCK: &str = include_str!("../../interop/package-lock.json");

const PROVIDER: OptionalTool = OptionalTool { topic: "provider", variable: "TEST_INTEROP", tests: "the interop tests" };

static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// The folder that the provider runs in, or `None` if the interop tests are skipped.
pub fn folder() -> Option<&'static Path> {
    PROVIDER.get(FOLDER.get_or_init(|| PROVIDER.find(find))).map(PathBuf::as_path)
}

fn find() -> Result<(String, PathBuf), String> {
    let version = node()?;
    let folder = fetch(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    Ok((format!("oidc-provider, on Node.js {version}"), folder))
}

/// The version of Node.js, if it has the functions that the provider calls.
fn node() -> Result<String, String> {
    let probe = "URL.parse && require('node:crypto').hash ? process.version : ''";
    let output =
        Command::new("node").args(["--print", probe]).output().map_err(|error| format!("no Node.js: {error}"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if version.is_empty() { Err("Node.js is too old, take 22 or later".to_owned()) } else { Ok(version) }
}

/// Fetches into a folder named after the lock file. One process fetches at a time; an interrupted
/// fetch starts over.
fn fetch(target: &Path) -> Result<PathBuf, String> {
    let digest = crypto::hex(&crypto::sha256(LOCK.as_bytes()));
    let folder = target.join(format!("interop-{digest:.12}"));
    let lock = File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
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
    PROVIDER.announce("fetching oidc-provider by npm, once");
    // Without a network, npm would otherwise retry for minutes.
    let short_waits = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=20000"];
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .args(short_waits)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("no npm: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = output.lines().filter_map(|line| line.strip_prefix("npm error ")).take(3).collect();
    Err(format!("npm ci failed: {}", errors.join("; ")))
}
