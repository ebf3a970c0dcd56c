//! The order of modules: the table in `src/lib.rs` lists them, and each may import only modules
//! above it. Also here: functions that only one module may call (AUTHZ-06), and the modules that use
//! the database driver (AUTHZ-04).

#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails")]

use std::{collections::BTreeMap, fs, path::Path};

/// The modules of the table in `src/lib.rs`, with their position from the top.
fn order() -> BTreeMap<String, usize> {
    let text = fs::read_to_string("src/lib.rs").unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | "));
    let names = rows.filter_map(|row| row.split('`').nth(1).filter(|_| row.starts_with(['[', '`'])));
    names.map(str::to_owned).zip(0..).collect()
}

/// The code of a file without comments and unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules in paths and `use` trees that begin with `crate::`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => found.push(identifier(after)),
            Some(tree) => {
                let mut depth = 1;
                let mut is_first = true;
                for (at, c) in tree.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => is_first = true,
                        _ if depth == 1 && is_first && c.is_alphabetic() => {
                            found.push(identifier(&tree[at..]));
                            is_first = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Adds a fault for each import of a module that stands below the importing module.
fn check(folder: &Path, module: Option<&str>, order: &BTreeMap<String, usize>, faults: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let inside = module.unwrap_or(&name);
        if path.is_dir() {
            check(&path, Some(inside), order, faults);
            continue;
        }
        if module.is_none() && ["lib", "main"].contains(&&*name) || name == "tests" {
            continue;
        }
        let Some(position) = order.get(inside) else {
            faults.push(format!("{inside} has no row in the table of src/lib.rs"));
            continue;
        };
        for import in imports(&code(&path)) {
            if order.get(&import).is_some_and(|imported| imported > position) {
                faults.push(format!("{}: `{inside}` imports `{import}`, a module further down", path.display()));
            }
        }
    }
}

#[test]
fn modules_import_only_modules_above_them_in_the_table() {
    let order = order();
    assert!(order.len() > 15, "the table of src/lib.rs was not found: {order:?}");
    let mut faults = Vec::new();
    check(Path::new("src"), None, &order, &mut faults);
    assert!(faults.is_empty(), "the order is in src/lib.rs\n{}", faults.join("\n"));
}

/// Functions that only this module may call. The compiler cannot enforce it within one crate.
const RESERVED: [(&str, &str); 2] = [("PersonalDataAccess::grant", "src/authz/"), (".__text()", "src/crypto/")];

/// Adds the files in a folder that contain this call.
fn callers(folder: &Path, call: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            callers(&path, call, found);
        } else if code(&path).contains(call) {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn authz_06_reserved_functions_are_called_by_their_module_only() {
    for (call, module) in RESERVED {
        let mut found = Vec::new();
        callers(Path::new("src"), call, &mut found);
        assert!(!found.is_empty() && found.iter().all(|path| path.starts_with(module)), "{call}: {found:?}");
    }
}

/// Modules whose code names the database driver.
const DATABASE: [&str; 5] = ["src/db", "src/store", "src/dev", "src/app", "src/package.rs"];

#[test]
fn authz_04_only_database_modules_use_the_driver() {
    let mut found = Vec::new();
    callers(Path::new("src"), "sqlx::", &mut found);
    found.retain(|path| !DATABASE.iter().any(|module| path.starts_with(module)));
    assert!(found.is_empty(), "move this to src/store or src/db: {found:?}");
}

#[test]
fn imports_are_found_in_trees_and_paths() {
    let code = "use crate::{\n    authn::{self, Source},\n    db,\n};\nfn f() -> crate::json::Value {}";
    assert_eq!(imports(code), ["authn", "db", "json"]);
}
