//! The macros of statements check what sqlx has checked (AUTHZ-07). Code of the service names
//! neither the driver nor the hidden parts of these macros, so it has no other way to send SQL.
//!
//! [`faults`] reads tokens, not lines: a comment hides no code, and no spelling hides a name.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Text that the code of the service does not have, outside comments. Case does not matter.
const FORBIDDEN: [&str; 21] = [
    "sqlx",
    "__",
    "query(",
    "raw_sql",
    "assertsqlsafe",
    "executor",
    ".connection(",
    ".begin(",
    "out_dir",
    "add_routes",
    "process::command",
    "server",
    "maintenance",
    "set_config",
    "app.tenant_id",
    "set role",
    "set local",
    "\"begin",
    "\"commit",
    "\"rollback",
    "\"savepoint",
];

/// Modules that the code of the service does not import, by crate. `std::os` has sockets too.
const MODULES: [(&str, &[&str]); 3] =
    [("std", &["net", "os", "process"]), ("poem", &["listener"]), ("palisade", &["ops"])];

/// The only name of a forbidden module that the service uses: the result of `main`.
const ALLOWED: [&str; 4] = ["process", ":", ":", "ExitCode"];

#[test]
fn authz_07_service_code_sends_checked_statements_only() {
    let mut found = Vec::new();
    sources(Path::new("src"), &mut found);
    // Demo data is written by the owner of the tables, in the development stack only.
    found.retain(|file| !file.starts_with("src/demo"));
    assert!(found.len() > 20, "{found:?}");
    let faults_of = |file: &PathBuf| {
        let faults = faults(&fs::read_to_string(file).unwrap()).into_iter();
        faults.map(|fault| format!("{}:{fault}", file.display())).collect::<Vec<_>>()
    };
    let faults: Vec<String> = found.iter().flat_map(faults_of).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What the code of the service must not have, each as `line: name`.
fn faults(source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let mut found = forbidden_text(&tokens);
    let mut route_attribute = 0..0;
    for (at, token) in tokens.iter().enumerate() {
        let rest = &tokens[at..];
        let mut report = |fault: &str| found.push(format!("{}: {fault}", token.line));
        if let Some(length) = attribute_length(rest) {
            let attribute = &rest[..length];
            if attribute.iter().any(|token| token.is("$")) {
                report("attribute with a part of a macro's input");
            }
            if starts_with(attribute, &["#", "[", "oai", "("]) {
                route_attribute = at..at + length;
            }
        }
        let is_assigned =
            starts_with(rest, &["path", "="]) && !rest.get(2).is_some_and(|next| "=>".contains(&next.text));
        if is_assigned && !route_attribute.contains(&at) {
            report("`path =`");
        }
        if token.kind == Kind::Word && token.is("include") {
            report("`include`");
        }
        let module = MODULES.iter().find(|(root, _)| token.kind == Kind::Word && token.is(root));
        if let Some((root, modules)) = module
            && !imports_only_others(&rest[1..], modules)
        {
            report(&format!("import of a forbidden module of `{root}`"));
        }
    }
    found
}

/// The forbidden text in the code without comments and without white space between tokens.
fn forbidden_text(tokens: &[Token]) -> Vec<String> {
    let mut code = String::new();
    let mut lines = Vec::new();
    let mut previous = Kind::Sign;
    for token in tokens {
        if (previous, token.kind) == (Kind::Word, Kind::Word) {
            code.push(' ');
        }
        lines.push((code.len(), token.line));
        code.push_str(&token.text.to_ascii_lowercase());
        previous = token.kind;
    }
    let line_of = |at| lines[lines.partition_point(|(start, _)| *start <= at) - 1].1;
    let places = FORBIDDEN.iter().flat_map(|name| code.match_indices(name));
    places.map(|(at, name)| format!("{}: {name}", line_of(at))).collect()
}

/// The number of tokens of the attribute that begins here.
fn attribute_length(tokens: &[Token]) -> Option<usize> {
    let open = if tokens.get(1)?.is("!") { 2 } else { 1 };
    if !tokens[0].is("#") || !tokens.get(open)?.is("[") {
        return None;
    }
    let mut depth = 0_usize;
    let close = tokens.iter().position(|token| {
        depth = if token.is("[") { depth + 1 } else { depth.saturating_sub(usize::from(token.is("]"))) };
        depth == 0 && token.is("]")
    });
    Some(close.map_or(tokens.len(), |close| close + 1))
}

/// Whether the path or import that continues here has names, and none of `modules`. An alias of the
/// crate and an import of everything could hide one. The name of a macro may be an input of another.
fn imports_only_others(tokens: &[Token], modules: &[&str]) -> bool {
    let is_other = |tokens: &[Token]| {
        let is_name = |token: &Token| token.kind == Kind::Word && !token.is("self");
        let is_forbidden = |token: &Token| modules.iter().any(|module| token.is(module));
        let is_macro = starts_with(tokens, &["$"]) && tokens.get(2).is_some_and(|token| token.is("!"));
        let is_module = tokens.first().is_some_and(|token| is_name(token) && !is_forbidden(token));
        is_module || is_macro || starts_with(tokens, &ALLOWED)
    };
    if !starts_with(tokens, &[":", ":"]) {
        return false;
    }
    let tokens = &tokens[2..];
    if !starts_with(tokens, &["{"]) {
        return is_other(tokens);
    }
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        let next = &tokens[at + 1..];
        let is_before_item = depth == 1 && (at == 0 || token.is(","));
        if is_before_item && !starts_with(next, &["}"]) && !is_other(next) {
            return false;
        }
        if depth == 0 {
            return true;
        }
    }
    false
}

fn starts_with(tokens: &[Token], texts: &[&str]) -> bool {
    tokens.len() >= texts.len() && tokens.iter().zip(texts).all(|(token, text)| token.is(text))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Identifier, keyword or number, without `r#`.
    Word,
    /// String or character, without its prefix.
    Literal,
    /// One character of punctuation.
    Sign,
}

#[derive(Debug)]
struct Token {
    line: usize,
    kind: Kind,
    text: String,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        self.kind != Kind::Literal && self.text == text
    }
}

/// The tokens of Rust code. Comments and white space are none (Rust Reference, "Lexical structure").
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let is = |at: usize, text: &str| text.chars().enumerate().all(|(n, char)| chars.get(at + n) == Some(&char));
    let is_word = |at: usize| chars.get(at).is_some_and(|char| char.is_alphanumeric() || *char == '_');
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let start = at;
        let mut kind = None;
        if is(at, "//") {
            at += chars[at..].iter().take_while(|char| **char != '\n').count();
        } else if is(at, "/*") {
            at = end_of_comment(&chars, at);
        } else if chars[at].is_whitespace() || "\u{200e}\u{200f}".contains(chars[at]) {
            at += 1;
        } else if let Some(end) = end_of_literal(&chars, at) {
            (kind, at) = (Some(Kind::Literal), end);
        } else if is_word(at) {
            at += if is(at, "r#") && is_word(at + 2) { 2 } else { 0 };
            at += (at..chars.len()).take_while(|at| is_word(*at)).count();
            kind = Some(Kind::Word);
        } else {
            (kind, at) = (Some(Kind::Sign), at + 1);
        }
        at = at.min(chars.len());
        let text: String = chars[start..at].iter().collect();
        if let Some(kind) = kind {
            found.push(Token { line, kind, text: plain(kind, &text) });
        }
        line += text.matches('\n').count();
    }
    found
}

/// The text of a token without its prefix. White space in strings becomes single spaces, and is
/// removed at the start.
fn plain(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Literal => {
            let content = text.trim_start_matches(|char: char| char.is_alphabetic() || char == '#');
            let (quote, content) = content.split_at(1);
            format!("{quote}{}", content.split_whitespace().collect::<Vec<_>>().join(" "))
        }
        Kind::Word => text.strip_prefix("r#").unwrap_or(text).to_owned(),
        Kind::Sign => text.to_owned(),
    }
}

/// The end of a block comment, which may contain others.
fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The end of the string or character that begins here, with its prefix. A lifetime is none.
fn end_of_literal(chars: &[char], start: usize) -> Option<usize> {
    let at_quote = ["br", "cr", "b", "c", "r", ""].iter().find_map(|prefix| {
        let after = start + prefix.len();
        let hashes =
            if prefix.ends_with('r') { chars.iter().skip(after).take_while(|c| **c == '#').count() } else { 0 };
        let is_prefix = prefix.chars().enumerate().all(|(n, char)| chars.get(start + n) == Some(&char));
        let quote = chars.get(after + hashes).filter(|char| matches!(char, '"' | '\''))?;
        is_prefix.then_some((after + hashes, *quote, prefix.ends_with('r').then_some(hashes)))
    });
    let (open, quote, raw) = at_quote?;
    if let Some(hashes) = raw {
        let is_end = |at: &usize| chars[*at] == '"' && chars.iter().skip(at + 1).take(hashes).all(|char| *char == '#');
        let close = (quote == '"').then(|| (open + 1..chars.len()).find(is_end).unwrap_or(chars.len()));
        return close.map(|close| close + 1 + hashes);
    }
    if quote == '\'' && chars.get(open + 1) != Some(&'\\') && chars.get(open + 2) != Some(&'\'') {
        return None;
    }
    let mut at = open + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    Some(at + 1)
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
