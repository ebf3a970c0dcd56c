//! Tests of new projects: the answers are filled in, no trace of this repository is left, and a
//! failure leaves nothing behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use template::{GENERATED, GENERATED_BLOCKS, Scaffold, scaffold};

use crate::support::{Template, append, cargo, git, read, repository, write};

/// Texts of this repository that no generated file may contain, in lower case.
const TRACES: [&str; 5] = ["orders-api", "{%", "cargo scaffold", "\"template\"", "an old line"];
/// Names of this repository's service. A project has another one, so its documents do not use them.
const NAMES: [&str; 6] =
    ["api://orders", "job_name: orders", "name=orders", "realms/orders", "keys/orders", "orders.example.com"];
/// Operations and scopes of the example domain, which every project begins with.
const DOMAIN: [&str; 3] = ["/v1/orders", "orders:read", "orders:write"];
/// What a project says about its updates.
const OF_UPDATES: &str = "cargo scaffold --update";

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Names of this repository's service in a file of deployment, of checks, or a document. Names in
/// files of deployment are neutral, so none contains the name of any service.
fn foreign_names(path: &str, text: &str) -> Vec<&'static str> {
    let text = DOMAIN.iter().fold(text.to_owned(), |text, word| text.replace(word, ""));
    let is_neutral = ["deploy/", ".ci/", ".github/", "Dockerfile"].iter().any(|start| path.starts_with(start));
    let names: &[&str] = if is_neutral && path != "deploy/rights.txt" { &["orders"] } else { &NAMES };
    let is_text = is_neutral || path.starts_with("docs/") || !path.contains('/');
    names.iter().copied().filter(|name| is_text && text.contains(name)).collect()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

fn of_repository(destination: &Path) -> Scaffold {
    Scaffold {
        template: repository(),
        name: "my-billing".to_owned(),
        destination: Some(destination.to_owned()),
        answers: Vec::new(),
        silent: true,
        git: true,
    }
}

#[test]
fn a_new_project_has_its_answers_and_no_trace_of_this_repository() {
    let place = TempDir::new().unwrap();
    let answers = [
        "description=Billing for Example Ltd",
        "author=Example Ltd <dev@example.com>",
        "issuer=https://id.example.com/realms/main",
        "owners=@example-ltd/security",
    ];
    let answers = answers.map(str::to_owned).to_vec();
    let project = scaffold(Scaffold { answers, ..of_repository(&place.path().join("new/folders")) }).unwrap().folder;
    assert_eq!(project, place.path().canonicalize().unwrap().join("new/folders/my-billing"));
    for file in files(&project) {
        let text = String::from_utf8_lossy(&fs::read(&file).expect("readable")).to_lowercase();
        let text = text.replace(OF_UPDATES, "");
        for trace in TRACES {
            assert!(!text.contains(trace), "{} contains `{trace}`", file.display());
        }
        let path = file.strip_prefix(&project).unwrap().to_str().unwrap();
        assert_eq!(foreign_names(path, &text), Vec::<&str>::new(), "{path}");
    }
    for (path, text) in [
        ("deploy/vault.yaml", "transit/keys/orders"),
        ("deploy/compose/prometheus.yml", "job_name: orders"),
        (".github/workflows/ci.yml", "docker run orders"),
        ("docs/issuers.md", "audience = \"api://orders\""),
        ("README.md", "psql -v name=orders"),
    ] {
        assert_eq!(foreign_names(path, text).len(), 1, "{path}: {text}");
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
    let manifest = read(&project, "Cargo.toml");
    for line in
        ["name = \"my-billing\"", "description = \"Billing for Example Ltd\"", "\"Example Ltd <dev@example.com>\""]
    {
        assert!(manifest.contains(line), "{manifest}");
    }
    let ends = manifest.ends_with(
        "\n# A workspace of its own, also in a folder of another one.\n[workspace]\nmembers = [\".\", \"crates/palisade\", \
         \"crates/palisade-test\", \"crates/palisade/tests/sample\"]\n",
    );
    assert!(ends, "{manifest}");
    assert_eq!(read(&project, "crates/palisade/Cargo.toml"), read(&repository(), "crates/palisade/Cargo.toml"));
    let example = read(&project, "deploy/example.env");
    assert!(example.contains("APP_OIDC__ISSUER=https://id.example.com/realms/main"), "{example}");
    assert!(example.contains("APP_OIDC__AUDIENCE=api://my-billing"), "{example}");
    let owners = read(&project, ".github/CODEOWNERS");
    assert!(owners.contains("/deny.toml                 @example-ltd/security\n"), "{owners}");
    for file in ["dependabot.yml", "pull_request_template.md", "workflows/advisories.yml", "workflows/release.yml"] {
        let path = format!(".github/{file}");
        assert_eq!(read(&project, &path), read(&repository(), &path));
    }
    let record = read(&project, ".palisade.toml");
    for line in
        ["name = \"my-billing\"", "description = \"Billing for Example Ltd\"", "audience = \"api://my-billing\""]
    {
        assert!(record.contains(line), "{record}");
    }
    let rules = read(&repository(), "cargo-generate.toml");
    for answer in rules.lines().filter_map(|line| line.strip_prefix("[placeholders.")?.strip_suffix(']')) {
        assert!(record.contains(&format!("\n{answer} = ")), "{answer} is not recorded for updates");
    }
    for path in GENERATED {
        assert!(project.join(path).exists(), "{path} does not exist");
    }
    for (path, name) in GENERATED_BLOCKS {
        assert!(read(&project, path).contains(&format!("\n<!-- end of {name} -->\n")), "{path} has no {name}");
    }
    assert_eq!(fs::read_dir(place.path().join("new/folders")).unwrap().count(), 1, "a temporary folder is left");
}

#[test]
fn only_projects_of_a_committed_template_name_its_commit() {
    let template = Template::standard();
    let place = TempDir::new().unwrap();
    let project = template.scaffold(place.path(), &[]);
    assert!(project.can_be_updated);
    assert!(read(&project.folder, ".palisade.toml").contains(&format!("commit = \"{}\"", template.old)));

    append(template.path(), "README.md", "Not committed.\n");
    let project = template.try_scaffold(place.path(), "second", &[]).unwrap();
    assert!(!project.can_be_updated);
    let record = read(&project.folder, ".palisade.toml");
    assert!(record.contains("version = ") && !record.contains("commit = "), "{record}");
}

#[test]
fn invalid_names_and_answers_are_rejected_and_nothing_is_left() {
    let place = TempDir::new().unwrap();
    let destination = place.path().join("new/folders");
    for name in ["", "My-Billing", "1st", "a_b", "a b", "../evil", "service", "tokio", "url", &"a".repeat(51)] {
        let result = scaffold(Scaffold { name: name.to_owned(), ..of_repository(&destination) });
        assert!(result.is_err(), "{name:?}");
    }
    for answer in ["issuer=http://id.example.com", "kernel=other", "kernel=git", "description={{x}}"] {
        let result = scaffold(Scaffold { answers: vec![answer.to_owned()], ..of_repository(&destination) });
        assert!(result.is_err(), "{answer}");
    }
    assert!(is_empty(place.path()));
}

#[test]
fn unusable_folders_are_rejected_and_nothing_is_left() {
    let place = TempDir::new().unwrap();
    write(place.path(), "a/my-billing/file", "");
    write(place.path(), "file", "");
    for (destination, words) in [
        (place.path().join("a"), "exists; choose another name or folder"),
        (place.path().join("new/../b"), "write it without"),
        (place.path().join("file"), "cannot write to"),
        (repository().join("docs"), "is inside the template"),
    ] {
        let error = scaffold(of_repository(&destination)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    assert!(!repository().join("docs/my-billing").exists());
}

#[test]
fn a_project_in_another_workspace_works_or_says_what_to_do() {
    let place = TempDir::new().unwrap();
    let root = place.path().canonicalize().unwrap();
    write(&root, "app/src/lib.rs", "");
    write(&root, "app/Cargo.toml", "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    let manifest = "[workspace]\nresolver = \"3\"\nmembers = [\"app\", \"services/*\"]\n";
    write(&root, "Cargo.toml", manifest);

    let error = scaffold(of_repository(&root.join("services"))).unwrap_err().to_string();
    let advice = "exclude = [\"services/my-billing\"]";
    assert!(error.contains(advice) && error.contains(&root.join("Cargo.toml").display().to_string()), "{error}");
    assert!(!root.join("services").exists());

    write(&root, "Cargo.toml", &format!("{manifest}{advice}\n"));
    for destination in ["services", "elsewhere"] {
        let project = scaffold(of_repository(&root.join(destination))).unwrap().folder;
        for folder in [&root, &project] {
            let arguments = ["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"];
            let output = cargo(folder).args(arguments).output().unwrap();
            let found = String::from_utf8(output.stdout).unwrap();
            let member = if *folder == root { "\"name\":\"app\"" } else { "\"name\":\"my-billing\"" };
            assert!(found.contains(member), "{found}{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    // A workspace that is broken already is not this project's fault.
    write(&root, "Cargo.toml", "[workspace]\nmembers = [\"missing\"]\n");
    assert!(scaffold(Scaffold { name: "third".to_owned(), ..of_repository(&root) }).is_ok());
}

#[test]
fn the_kernel_can_be_a_dependency_on_a_tag_of_this_repository() {
    let template = Template::new(|_| (), |template| write(template, "docs/new.md", "# New\n"));
    template.advance();
    git(template.path(), &["tag", "v1"]);
    let place = TempDir::new().unwrap();
    let source = format!("file://{}", template.path().display());
    let answers = ["kernel=git", &format!("kernel-source={source}"), "kernel-tag=v1"];
    let project = template.scaffold(place.path(), &answers).folder;
    let manifest = read(&project, "Cargo.toml");
    assert!(manifest.contains(&format!("\npalisade = {{ git = \"{source}\", tag = \"v1\" }}\n")), "{manifest}");
    assert!(manifest.ends_with("\n[workspace]\nmembers = [\".\"]\n"), "{manifest}");
    assert!(!project.join("crates").exists() && project.join("deploy/roles.sql").exists());
    assert!(project.join("deploy/backup_role.sql").exists());
    assert!(read(&project, "README.md").contains("psql -f deploy/roles.sql\n"));
    assert!(read(&project, "deny.toml").contains(&format!("\n    \"{source}\",\n")));
    assert!(read(&project, ".palisade.toml").contains("kernel-tag = \"v1\""));
    assert!(read(&project, "Cargo.lock").contains(&format!("git+{source}?tag=v1")));
}
