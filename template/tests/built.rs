//! Tests that build projects: the suite of a new one passes and `cargo dev` runs, and the suite of an
//! updated one passes. One at a time, because each takes all processors.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
};

use support::{HANDLER, Template, cargo, commit, edit, in_project, read, repository, write};
use tempfile::TempDir;
use template::{Scaffold, scaffold, update};

#[path = "resource/mod.rs"]
mod resource;
#[expect(dead_code, reason = "the fast tests use the rest")]
#[path = "fast/support.rs"]
mod support;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn a_new_project_passes_its_suite_and_runs() {
    let _turn = ONE_AT_A_TIME.lock();
    let place = TempDir::new().expect("a folder");
    let project = scaffold(Scaffold {
        template: repository(),
        name: "my-billing".to_owned(),
        destination: Some(place.path().to_owned()),
        answers: Vec::new(),
        silent: true,
        git: true,
    });
    let project = project.expect("generates").folder;
    assert_succeeds(cargo(&project).args(["test", "--locked", "--offline"]));
    assert_dev_runs(&project);
}

fn assert_succeeds(command: &mut Command) {
    let status = command.status().expect("it runs");
    assert!(status.success(), "{command:?} fails");
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

/// The project is older by a change of the kernel, a renaming, a deletion and a setting. Its team
/// added a resource, and edited a handler.
#[test]
fn an_updated_project_passes_its_suite() {
    let _turn = ONE_AT_A_TIME.lock();
    let template = Template::new(support::older, |template| write(template, "docs/new.md", "# New\n"));
    let place = TempDir::new().expect("a folder");
    let project = template.project(place.path(), |project| {
        edit(project, HANDLER, "/// Display name, 1 to 200 characters.", "/// Name on the shelf, 1 to 200 characters.");
        resource::add(project);
    });
    let outcome = update(&template.update(&project)).expect("updates");
    assert_eq!(outcome.conflicts, []);

    // As the report says.
    assert_succeeds(&mut in_project(&project, project.join(".ci/regenerate")));
    assert!(read(&project, "docs/openapi.json").contains("Name on the shelf"));
    assert!(read(&project, "deploy/rights.txt").contains("app_reader    table public.shelves: select\n"));
    assert!(read(&project, "tests/suite/access/matrix.txt").contains("\nGET /v1/shelves "));
    assert!(read(&project, "SECURITY.md").contains("/v1/shelves"));
    commit(&project);
    assert_succeeds(cargo(&project).args(["test", "--locked", "--offline", "--", "--skip", "drills::"]));
}
