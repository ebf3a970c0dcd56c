//! The checks of a new project (`.ci/run`) run on a machine that has PostgreSQL, and neither Redis
//! nor `promtool` nor Node.js nor a browser, as a hosted runner. Programs are stubs that record each call.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use crate::support::{Template, read, repository, write};

/// Programs that the checks need and every machine has.
const BASICS: [&str; 18] = [
    "bash", "cat", "chmod", "cmp", "cp", "dirname", "env", "grep", "head", "id", "ls", "mkdir", "rm", "sed", "sh",
    "tail", "timeout", "tr",
];

/// Stands in for every other program: records name, arguments and settings, and what can be found.
/// `apt-get` "installs" by copies of itself.
const STUB: &str = r#"#!/bin/sh
name=${0##*/}
found=$(for tool in redis-server promtool node chromium; do command -v "$tool" >/dev/null && printf ' %s' "$tool"; done)
echo "$name $* [redis=$TEST_REDIS promtool=$TEST_PROMTOOL interop=$TEST_INTEROP browser=$TEST_BROWSER]$found" >>"$LOG"
bin=${LOG%/*}/bin
case "$name $1" in
"apt-get install") for package in redis-server nodejs npm chromium; do
    case " $* " in *" $package "*) cp "$0" "$bin/$(echo "$package" | sed s/nodejs/node/)" ;; esac
done ;;
"apt-get download") : >prometheus_1.deb ;;
"dpkg-deb --extract") mkdir -p usr/bin && cp "$0" usr/bin/promtool ;;
"sudo "*) shift && exec "$@" ;;
"python3 -m") mkdir -p "$3/bin" && cp "$0" "$3/bin/pip" ;;
"docker "*) exit 1 ;;
esac
"#;

/// Runs the checks of a folder; the titles of its steps, and the calls.
fn run_checks(folder: &Path) -> (Vec<String>, Vec<String>) {
    let place = TempDir::new().unwrap();
    let bin = place.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for name in BASICS {
        let mut programs = std::env::split_paths(&path).map(|folder| folder.join(name));
        symlink(programs.find(|program| program.exists()).unwrap(), bin.join(name)).unwrap();
    }
    let stub = |path: &Path| {
        fs::write(path, STUB).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    for name in
        ["apt-get", "cargo", "docker", "dpkg-deb", "git", "initdb", "postgres", "psql", "python3", "rustup", "sudo"]
    {
        stub(&bin.join(name));
    }
    for name in ["secret-scan", "prose", "prepare-queries", "supply-chain", "check-release"] {
        stub(&folder.join(".ci").join(name));
    }
    let log = place.path().join("log");
    let mut checks = Command::new(folder.join(".ci/run"));
    let output = checks.env_clear().env("CI", "true").env("PATH", &bin).env("LOG", &log).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let title = |line: &str| Some(line.strip_prefix("== ")?.rsplit_once(" (")?.0.to_owned());
    let calls = fs::read_to_string(log).unwrap();
    (text.lines().filter_map(title).collect(), calls.lines().map(str::to_owned).collect())
}

fn assert_called(calls: &[String], start: &str, end: &str) {
    let is_call = |call: &&String| call.starts_with(start) && call.ends_with(end);
    assert!(calls.iter().any(|call| is_call(&call)), "{start} … {end}: {calls:#?}");
}

#[test]
fn checks_of_a_new_project_install_what_a_hosted_runner_lacks() {
    let template = Template::new(|_| (), |template| write(template, "docs/new.md", "# New\n"));
    let place = TempDir::new().unwrap();
    let project = template.scaffold(place.path(), &[]).folder;
    let (steps, calls) = run_checks(&project);
    let tested = "[redis=required promtool=required interop=off browser=off] redis-server promtool node chromium";
    let browser = "[redis=required promtool=required interop=off browser=required] redis-server promtool node chromium";
    assert_called(&calls, "cargo test ", tested);
    assert_called(&calls, "cargo test --locked --test suite -- browser::", browser);
    assert_called(&calls, "cargo test --locked --package palisade --package palisade-sample", browser);
    for (start, part) in [
        ("cargo install ", " --locked cargo-deny@"),
        ("cargo install ", " --locked cargo-cyclonedx@"),
        ("pip install ", " --require-hashes -r .ci/python-tools.txt "),
        ("apt-get install ", " shellcheck "),
        ("supply-chain ", ""),
    ] {
        let is_call = |call: &String| call.starts_with(start) && call.contains(part);
        assert!(calls.iter().any(is_call), "{start}{part}: {calls:#?}");
    }
    let expected = [
        "tools",
        "secrets",
        "format",
        "prose",
        "lint",
        "test, as the README says",
        "browser",
        "test, the kernel's own suite",
        "queries",
        "supply chain",
        "release binary",
        "done",
    ];
    assert_eq!(steps, expected);

    // With the kernel as a dependency, its suite is not in the project.
    fs::remove_dir_all(project.join("crates")).unwrap();
    let (steps, calls) = run_checks(&project);
    assert_called(&calls, "cargo test ", tested);
    assert!(!steps.contains(&"test, the kernel's own suite".to_owned()) && steps.ends_with(&["done".to_owned()]));
}

#[test]
fn checks_of_the_template_install_what_a_hosted_runner_lacks() {
    let place = TempDir::new().unwrap();
    for file in [".ci/run", ".ci/tools", ".ci/pinned-tools", ".ci/python-tools.txt", "crates/palisade/Cargo.toml"] {
        write(place.path(), file, &read(&repository(), file));
    }
    fs::set_permissions(place.path().join(".ci/run"), fs::Permissions::from_mode(0o755)).unwrap();
    let (steps, calls) = run_checks(place.path());
    for (command, browser) in [
        ("cargo test ", "off"),
        ("cargo test --locked --test suite -- browser::", "required"),
        ("cargo test --package template --locked", "required"),
    ] {
        let settings = format!("[redis=required promtool=required interop=required browser={browser}]");
        assert_called(&calls, command, &format!("{settings} redis-server promtool node chromium"));
    }
    assert_eq!(steps.last().map(String::as_str), Some("done"), "{steps:#?}");
}
