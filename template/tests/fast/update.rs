//! Updates of projects: what reaches a project, what stays the team's, and what is refused. Each
//! refusal changes nothing.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use tempfile::TempDir;
use template::{Conflict, Update, update};

use crate::support::{
    DELETED, HANDLER, KERNEL_FILE, NEW_KERNEL_MIGRATION, NEW_MIGRATION, OLD_NAME, RENAMED, SETTINGS, Template, append,
    commit, edit, git, older, read, write,
};

fn state(project: &Path) -> String {
    format!("{} {}", git(project, &["rev-parse", "HEAD"]), git(project, &["status", "--porcelain", "--ignored"]))
}

/// Asserts that the update fails with these words, and changes nothing.
fn assert_refused(options: &Update, words: &[&str]) {
    let before = state(&options.project);
    let error = format!("{:#}", update(options).expect_err("it is refused"));
    for word in words {
        assert!(error.contains(word), "{error:?} does not contain {word:?}");
    }
    assert_eq!(state(&options.project), before, "something was changed");
}

/// What a team adds and edits.
fn team(project: &Path) {
    write(project, "src/domain/note.rs", "//! Notes on orders.\n");
    edit(project, "src/domain/mod.rs", "mod money;\n", "mod money;\nmod note;\n");
    write(project, "migrations/0101_notes.sql", "create table notes ();\n");
    write(project, ".sqlx/query-team.json", "{}\n");
    edit(project, HANDLER, "//! ", "//! The team's: ");
    append(project, OLD_NAME, "\nNote: the team's word.\n");
    edit(project, "docs/openapi.json", "\"old\"", "\"team\"");
    edit(project, "SECURITY.md", "| OLD-01 |", "| TEAM-01 |");
    edit(project, "Cargo.toml", "version = \"0.0.1-", "version = \"7.0.1-");
    edit(project, "SECURITY.md", "# Security\n", "# Security of billing\n");
}

#[test]
fn update_brings_every_change_and_keeps_the_work_of_the_team() {
    let template = Template::standard();
    let place = TempDir::new().unwrap();
    let project = template.project(place.path(), team);
    let outcome = update(&template.update(&project)).unwrap();
    assert_eq!(outcome.conflicts, []);
    assert_eq!(outcome.migrations, [NEW_MIGRATION]);

    // The kernel, the service, the setting, the renaming and the deletion.
    assert!(!read(&project, KERNEL_FILE).contains("An old line"));
    assert!(!read(&project, HANDLER).contains("An old line"));
    assert!(read(&project, SETTINGS).contains("docs: bool"));
    assert!(!project.join(OLD_NAME).exists() && !project.join(DELETED).exists());
    // The team's.
    assert!(read(&project, RENAMED).contains("the team's word"));
    assert!(read(&project, HANDLER).starts_with("//! The team's: "));
    assert!(read(&project, "src/domain/mod.rs").contains("mod note;\n"));
    assert!(project.join("src/domain/note.rs").exists() && project.join(".sqlx/query-team.json").exists());
    assert!(project.join("migrations/0101_notes.sql").exists() && !project.join(NEW_MIGRATION).exists());
    assert!(project.join(NEW_KERNEL_MIGRATION).exists());
    // Generated: as the team had them.
    assert!(read(&project, "docs/openapi.json").contains("\"team\""));
    let security = read(&project, "SECURITY.md");
    assert!(security.contains("| TEAM-01 |") && security.starts_with("# Security of billing"));

    assert!(read(&project, "Cargo.toml").contains("version = \"7.0.1-"));

    let record = read(&project, ".palisade.toml");
    assert!(record.contains(&format!("commit = \"{}\"", template.new)), "{record}");
    assert!(git(&project, &["diff", "--name-only"]).is_empty(), "all is staged");
    commit(&project);
    let again = update(&template.update(&project)).unwrap();
    assert!(again.changes.is_empty() && again.from == again.to);
}

#[test]
fn an_updated_project_equals_a_new_one() {
    let template = Template::standard();
    let [updated, fresh] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let updated = template.project(updated.path(), |_| ());
    update(&template.update(&updated)).unwrap();
    let fresh = template.scaffold(fresh.path(), &[]).folder;
    let difference = Command::new("diff").args(["-rq", "--exclude=.git"]).args([&updated, &fresh]).output().unwrap();
    let difference = String::from_utf8(difference.stdout).unwrap();
    // What belongs to the project, and generated texts.
    for kept in ["Cargo.lock", "Cargo.toml", "SECURITY.md", "openapi.json", "0900_new_in_the_template.sql"] {
        assert!(difference.contains(kept), "{difference}");
    }
    assert_eq!(difference.lines().count(), 5, "{difference}");
}

#[test]
fn conflicts_are_listed_and_left_unmerged_and_can_be_undone() {
    let template = Template::standard();
    let place = TempDir::new().unwrap();
    let project = template.project(place.path(), |project| {
        edit(project, HANDLER, "// An old line of the service.", "// The team's line.");
        append(project, DELETED, "The team uses it.\n");
    });
    let before = state(&project);
    let mut options = template.update(&project);
    options.check = true;
    let checked = update(&options).unwrap();
    assert_eq!(state(&project), before, "a check changes nothing");

    options.check = false;
    let outcome = update(&options).unwrap();
    assert_eq!(outcome.conflicts, checked.conflicts);
    assert_eq!(outcome.changes, checked.changes);
    let conflict = |path: &str, in_template| Conflict { path: path.to_owned(), in_project: true, in_template };
    assert_eq!(outcome.conflicts, [conflict(DELETED, false), conflict(HANDLER, true)]);
    let handler = read(&project, HANDLER);
    assert!(handler.contains("<<<<<<< project\n// The team's line.") && handler.contains(">>>>>>> template"));
    let unmerged = git(&project, &["diff", "--name-only", "--diff-filter=U"]);
    assert_eq!(unmerged, format!("{DELETED}\n{HANDLER}"));
    let report = outcome.report(false);
    for line in [
        format!("{HANDLER}: changed by the project and by the template"),
        format!("{DELETED}: changed by the project, deleted or moved by the template"),
        NEW_MIGRATION.to_owned(),
        "git restore --staged --worktree .".to_owned(),
    ] {
        assert!(report.contains(&line), "{report}");
    }
    // git has the template's version, for its tools.
    git(&project, &["checkout", "--theirs", HANDLER]);
    assert!(!read(&project, HANDLER).contains("The team's line."));

    git(&project, &["restore", "--staged", "--worktree", "."]);
    assert_eq!(state(&project), before, "the report says how to undo");
    assert_refused_by_git(&template, &project);
}

/// A file that git ignores is where the template has a new file.
fn assert_refused_by_git(template: &Template, project: &Path) {
    let path = RENAMED;
    append(project, ".gitignore", &format!("{path}\n"));
    commit(project);
    write(project, path, "Local.\n");
    assert_refused(&template.update(project), &["nothing was changed; move the files that are in the way", path]);
    assert_eq!(read(project, path), "Local.\n");
}

#[test]
fn a_file_added_to_a_moved_folder_moves_with_it() {
    let template = Template::new(
        |template| {
            for name in ["README.md", "disk.md"] {
                write(template, &format!("docs/old-place/{name}"), &format!("A page with {name} in it.\n"));
            }
        },
        |template| {
            for name in ["README.md", "disk.md"] {
                write(template, &format!("docs/new-place/{name}"), &format!("A page with {name} in it.\n"));
            }
        },
    );
    let place = TempDir::new().unwrap();
    let project = template.project(place.path(), |project| write(project, "docs/old-place/team.md", "The team's.\n"));
    let outcome = update(&template.update(&project)).unwrap();
    assert_eq!(outcome.conflicts, []);
    assert!(project.join("docs/new-place/team.md").exists() && !project.join("docs/old-place").exists());
}

#[test]
fn a_project_in_a_larger_repository_is_updated_alone() {
    let template = Template::standard();
    let repository = TempDir::new().unwrap();
    git(repository.path(), &["init", "--quiet"]);
    write(repository.path(), "other/file", "Another project.\n");
    let project = template.project(&repository.path().join("services"), |project| {
        assert!(!project.join(".git").exists(), "a repository in a repository");
        edit(project, HANDLER, "// An old line of the service.", "// The team's line.");
    });
    append(repository.path(), "other/file", "Uncommitted, and not in the way.\n");
    let outcome = update(&template.update(&project)).unwrap();
    assert_eq!(outcome.conflicts.len(), 1);
    assert!(project.join(RENAMED).exists() && !project.join(OLD_NAME).exists());
    let unmerged = git(repository.path(), &["diff", "--name-only", "--diff-filter=U"]);
    assert_eq!(unmerged, format!("services/my-billing/{HANDLER}"));
    assert!(read(repository.path(), "other/file").contains("Uncommitted"));
}

#[test]
fn projects_that_cannot_be_updated_are_refused_and_told_why() {
    let template = Template::standard();
    let place = TempDir::new().unwrap();
    let project = template.scaffold(place.path(), &[]).folder;
    template.advance();
    let options = template.update(&project);
    assert!(update(&options).unwrap_err().to_string().contains("has no commit of its files; commit them"));
    let first = commit(&project);

    append(&project, HANDLER, "// Not committed.\n");
    assert_refused(&options, &["uncommitted changes; commit or stash them", HANDLER]);
    git(&project, &["checkout", "."]);

    let record = read(&project, ".palisade.toml");
    let line = |key: &str| record.lines().find(|line| line.starts_with(key)).unwrap().to_owned() + "\n";
    for (record, words) in [
        (record.replace(&line("commit"), ""), "made from a template with uncommitted changes"),
        (record.replace(&line("commit"), "").replace(&line("version"), ""), "made by `cargo generate`"),
        (record.replace(&template.old, &"0".repeat(40)), "run `git fetch` in it"),
        (record.replace("name =", "name"), "is not readable; restore it"),
    ] {
        write(&project, ".palisade.toml", &record);
        commit(&project);
        assert_refused(&options, &[words]);
    }
    fs::remove_file(project.join(".palisade.toml")).unwrap();
    commit(&project);
    assert_refused(&options, &[".palisade.toml is missing", "docs/upgrading.md"]);
    let missing = Update { project: place.path().join("missing"), ..options.clone() };
    assert!(update(&missing).unwrap_err().to_string().contains("is not a folder"));
    git(&project, &["reset", "--quiet", "--hard", &first]);
    assert!(update(&options).is_ok());
}

#[test]
fn templates_without_the_history_of_the_project_are_refused() {
    let template = Template::standard();
    let place = TempDir::new().unwrap();
    let project = template.project(place.path(), |_| ());
    let shallow = place.path().join("shallow");
    let source = format!("file://{}", template.path().display());
    git(place.path(), &["clone", "--quiet", "--depth", "1", &source, "shallow"]);
    assert_refused(&Update { template: shallow, ..template.update(&project) }, &["shallow", "git fetch --unshallow"]);

    update(&template.update(&project)).unwrap();
    commit(&project);
    git(template.path(), &["checkout", "--quiet", &template.old]);
    assert_refused(&template.update(&project), &["HEAD does not contain commit", "git pull"]);
}

const MIGRATION: &str = "crates/palisade/migrations/core/0001_tenants.sql";

#[test]
fn a_changed_or_deleted_migration_of_the_kernel_is_refused() {
    let changes: [fn(&Path); 2] = [
        |template| append(template, MIGRATION, "select 1;\n"),
        |template| fs::remove_file(template.join(MIGRATION)).unwrap(),
    ];
    for change in changes {
        let template = Template::new(older, change);
        let place = TempDir::new().unwrap();
        let project = template.project(place.path(), |_| ());
        let mut options = template.update(&project);
        assert_refused(&options, &[MIGRATION, "report this to the template"]);
        depend_on_tag(&project);
        commit(&project);
        options.answers = vec!["kernel-tag=v2".to_owned()];
        assert_refused(&options, &[MIGRATION, "report this to the template"]);
    }
}

/// Makes a project one with the kernel as a dependency.
fn depend_on_tag(project: &Path) {
    edit(
        project,
        ".palisade.toml",
        "kernel = \"copy\"",
        "kernel = \"git\"\nkernel-source = \"https://e.test/k\"\nkernel-tag = \"v1\"",
    );
}

#[test]
fn a_project_with_the_kernel_as_a_dependency_names_the_tag_of_an_update() {
    let template = Template::standard();
    let place = TempDir::new().unwrap();
    let project = template.project(place.path(), depend_on_tag);
    let mut options = template.update(&project);
    assert_refused(&options, &["-d kernel-tag=TAG"]);
    options.answers = vec!["kernel-tag=v2".to_owned()];
    update(&options).unwrap();
    let record = read(&project, ".palisade.toml");
    assert!(
        record.contains("kernel-tag = \"v2\"") && record.contains("kernel-source = \"https://e.test/k\""),
        "{record}"
    );
}

#[test]
fn changed_answers_are_merged_too() {
    let template = Template::standard();
    let place = TempDir::new().unwrap();
    let project = template.scaffold(place.path(), &["issuer=https://old.example.com"]).folder;
    commit(&project);
    let mut options = template.update(&project);
    options.answers = vec!["issuer=https://new.example.com".to_owned()];
    let outcome = update(&options).unwrap();
    assert_eq!(outcome.from, outcome.to);
    assert!(read(&project, "deploy/example.env").contains("APP_OIDC__ISSUER=https://new.example.com"));
    commit(&project);
    options.answers = vec!["issuer=not a URL".to_owned()];
    assert_refused(&options, &["cannot render the template's commit"]);
}

/// Runs itself in a second process, whose git does not know the merge.
#[test]
fn old_versions_of_git_are_named() {
    let template = Template::standard();
    let place = TempDir::new().unwrap();
    if std::env::var_os("OLD_GIT").is_some() {
        let project = template.project(place.path(), |_| ());
        return assert_refused(&template.update(&project), &["version 2.38 or later is needed"]);
    }
    let path = std::env::var("PATH").unwrap();
    let script = "#!/bin/sh\nPATH=${PATH#*:}\ncase \"$*\" in *merge-tree*) exit 129;; esac\nexec git \"$@\"\n";
    write(place.path(), "git", script);
    fs::set_permissions(place.path().join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "update::old_versions_of_git_are_named"])
        .env("OLD_GIT", "1")
        .env("PATH", format!("{}:{path}", place.path().display()))
        .output()
        .unwrap();
    assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stdout));
}

#[test]
fn the_command_line_separates_new_projects_from_updates() {
    for (arguments, words) in [
        (["--check", "my-billing"], "cannot be used with"),
        (["--update=project", "my-billing"], "cannot be used with"),
        (["--update=project", "--path=folder"], "cannot be used with"),
        (["--update=missing", "--check"], "missing is not a folder"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_template")).args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(words), "{error}");
    }
}
