//! Packages of npm for tests that run a program on Node.js, fetched once per lock file.
//!
//! The interop tests of the kernel run an OpenID provider, the browser tests of a service
//! playwright-core. Without Node.js 22 or later, or if npm cannot fetch, they are skipped or fail
//! ([`OptionalTool`]).

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
};

use palisade::crypto;

use crate::{OptionalTool, scratch_folder};

/// Packages of one lock file.
#[derive(Clone, Copy)]
pub struct NpmPackages {
    /// What they are for; announces a fetch.
    pub tool: OptionalTool,
    /// Name of the folder, before the digest of the lock file.
    pub name: &'static str,
    /// The text of `package.json`.
    pub manifest: &'static str,
    /// The text of `package-lock.json`.
    pub lock: &'static str,
}

impl NpmPackages {
    /// The version of Node.js, and the folder with the packages.
    ///
    /// # Errors
    /// Why the tests cannot run.
    pub fn fetch(&self) -> Result<(String, PathBuf), String> {
        let version = node_version()?;
        let digest = crypto::hex(&crypto::sha256(self.lock.as_bytes()));
        let folder = scratch_folder().join(format!("{}-{digest:.12}", self.name));
        // One process fetches at a time; an interrupted fetch starts over.
        let lock = File::create(folder.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        let complete = folder.join("complete");
        if !complete.exists() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("package.json"), self.manifest).unwrap();
            fs::write(folder.join("package-lock.json"), self.lock).unwrap();
            self.run_npm(&folder)?;
            fs::write(&complete, "").unwrap();
        }
        Ok((version, folder))
    }

    fn run_npm(&self, folder: &PathBuf) -> Result<(), String> {
        self.tool.announce("fetching packages by npm, once");
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
}

/// The version of Node.js, if it has the functions that the programs call.
fn node_version() -> Result<String, String> {
    let probe = "URL.parse && require('node:crypto').hash ? process.version : ''";
    let output =
        Command::new("node").args(["--print", probe]).output().map_err(|error| format!("no Node.js: {error}"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if version.is_empty() { Err("Node.js is too old, take 22 or later".to_owned()) } else { Ok(version) }
}
