//! The npm package `oidc-provider` for the interop tests.
//!
//! Without it the interop tests are skipped; `TEST_INTEROP=required` or a set `CI` makes that a
//! failure. `TEST_INTEROP=off` always skips them.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{NpmPackages, OptionalTool};

const PROVIDER: OptionalTool = OptionalTool { topic: "provider", variable: "TEST_INTEROP", tests: "the interop tests" };

const PACKAGES: NpmPackages = NpmPackages {
    tool: PROVIDER,
    name: "interop",
    manifest: include_str!("../../interop/package.json"),
    lock: include_str!("../../interop/package-lock.json"),
};

static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// The folder that the provider runs in, or `None` if the interop tests are skipped.
pub fn folder() -> Option<&'static Path> {
    let find = || {
        let (version, folder) = PACKAGES.fetch()?;
        Ok((format!("oidc-provider, on Node.js {version}"), folder))
    };
    PROVIDER.get(FOLDER.get_or_init(|| PROVIDER.find(find))).map(PathBuf::as_path)
}
