//! The check of service code ([`palisade_test::source_check`], AUTHZ-07): the sample service passes,
//! and no spelling evades it.

use crate::support::source_check::{faults, faults_below};

#[test]
fn authz_07_service_code_sends_checked_statements_only() {
    assert_eq!(faults_below("src", "src/demo.rs"), Vec::<String>::new());
}

#[test]
fn authz_07_check_of_service_code_is_not_evaded() {
    let evasions = [
        ("#[path = \"../../outside.rs\"] mod outside;", "1: `path =`"),
        ("#[cfg_attr(all(), path = \"../../outside.rs\")] mod outside;", "1: `path =`"),
        ("#[cfg_attr(all(), r#path\n=\"../outside.rs\")] mod outside;", "1: `path =`"),
        ("#[oai(path = \"/v1\")] fn get() {} outside!(path = \"../outside.rs\");", "1: `path =`"),
        ("macro_rules! at { ($p:ident) => { #[$p = \"a.rs\"] mod a; } }", "1: attribute with"),
        ("/*\n// */ use sqlx::raw_sql;", "2: raw_sql"),
        ("/* /* */ // */ use sqlx::raw_sql;", "1: raw_sql"),
        ("let a = \"/*\"; raw_sql(a); \"*/\"", "1: raw_sql"),
        ("let a = '\"'; /* \" */ raw_sql(a)", "1: raw_sql"),
        ("let a = '\\''; raw_sql(\"'\")", "1: raw_sql"),
        ("let a = r#\"\\\"/*\"#; raw_sql(a) // */", "1: raw_sql"),
        ("fn f<'a>(b: &'a str) { raw_sql(b) }", "1: raw_sql"),
        ("include /* */ ! (\"../../outside.rs\");", "1: `include`"),
        ("macro_rules! call { ($name:ident) => { std::$name!(\"a.rs\"); } } call!(include);", "1: `include`"),
        ("use std::{net, process};", "import of a forbidden module of `std`"),
        ("use std::{fmt, io::{self, Read}, r#net::{TcpStream}};", "import of a forbidden module of `std`"),
        ("use std::{process as p};", "import of a forbidden module of `std`"),
        ("use std::process as p;", "import of a forbidden module of `std`"),
        ("use std::process::{Command, ExitCode};", "import of a forbidden module of `std`"),
        ("use std::{{net}};", "import of a forbidden module of `std`"),
        ("use ::{std::{fmt, net}};", "import of a forbidden module of `std`"),
        ("use std :: /* */ net;", "import of a forbidden module of `std`"),
        ("use std::os::unix::net::UnixStream;", "import of a forbidden module of `std`"),
        ("use std::*;", "import of a forbidden module of `std`"),
        ("use std::{self as s};", "import of a forbidden module of `std`"),
        ("use std as s;", "import of a forbidden module of `std`"),
        ("extern crate std as s;", "import of a forbidden module of `std`"),
        ("of_crate!(std);", "import of a forbidden module of `std`"),
        ("std::$module::Command", "import of a forbidden module of `std`"),
        ("use poem::{Result, listener};", "import of a forbidden module of `poem`"),
        ("use palisade::{http::Context, ops as o};", "import of a forbidden module of `palisade`"),
        ("r#\"\n  SET\n  ROLE owner\"#", "1: set role"),
        ("\" begin\"", "1: \"begin"),
    ];
    for (source, expected) in evasions {
        let found = faults(source);
        assert!(found.iter().any(|fault| fault.contains(expected)), "{source}: {found:?}");
    }
}

#[test]
fn authz_07_check_of_service_code_accepts_comments_and_other_names() {
    let accepted = [
        "// use sqlx::raw_sql;\n//! sqlx\n/// std::net\n",
        "/* use sqlx::raw_sql; /* std::net */\n * sqlx */ fn a() {}",
        "/** sqlx */ fn a<'a>(net: &'a i64) -> bool { net.is_positive() }",
        "use std::{fmt, io::{self, process}, process::ExitCode,};",
        "fn main() -> std::process::ExitCode { ::std::process::ExitCode::SUCCESS }",
        "#[oai(path = \"/v1/orders/:id\", method = \"get\")] async fn get() {}",
        "macro_rules! call { ($kind:ident) => { palisade::$kind!(include_str!(\"a.txt\")) } }",
        "if path == other { match path { path => {} } }",
        "\"// no comment\"; 'a'; '\\u{61}'; b'\\''; br##\"a\"#b\"##; c\"a\"; r\"\\\"; 1.0e5",
    ];
    for source in accepted {
        assert_eq!(faults(source), Vec::<String>::new(), "{source}");
    }
}
