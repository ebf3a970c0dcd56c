//! What the code of a service must not name (AUTHZ-07): the database driver, the hidden parts of the
//! kernel's macros, and other ways around the kernel. So it has no other way to send SQL than the
//! macros of statements, which check what sqlx has checked.
//!
//! [`faults`] reads tokens, not lines: a comment hides no code, and no spelling hides a name.

use std::{fs, path::Path};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

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

/// The faults of all Rust files below this folder, except those in `exempt`, each as
/// `file:line: name`.
///
/// # Panics
/// The folder has no Rust file, so that nothing was checked.
pub fn faults_below(folder: &str, exempt: &str) -> Vec<String> {
    let mut files = Vec::new();
    collect(Path::new(folder), Path::new(exempt), &mut files);
    assert!(!files.is_empty(), "{folder} has no Rust file");
    let faults_of = |file: &String| {
        let faults = faults(&fs::read_to_string(file).unwrap()).into_iter();
        faults.map(|fault| format!("{file}:{fault}")).collect::<Vec<_>>()
    };
    files.iter().flat_map(faults_of).collect()
}

fn collect(folder: &Path, exempt: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.starts_with(exempt) {
            continue;
        }
        if path.is_dir() {
            collect(&path, exempt, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path.display().to_string());
        }
    }
}

/// What the code of a service must not have, each as `line: name`. Code that is no Rust is a fault.
pub fn faults(source: &str) -> Vec<String> {
    let Ok(stream) = source.parse::<TokenStream>() else { return vec!["1: not Rust".to_owned()] };
    let mut tokens = Vec::new();
    flatten(stream, &mut tokens);
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

/// Adds the tokens of a stream, without documentation comments.
fn flatten(stream: TokenStream, found: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        let mut add = |line, kind, text: &str| found.push(Token { line, kind, text: plain(kind, text) });
        match tree {
            TokenTree::Ident(word) => add(line, Kind::Word, &word.to_string()),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let kind = if text.contains(['"', '\'']) { Kind::Literal } else { Kind::Word };
                add(line, kind, &text);
            }
            TokenTree::Punct(sign) => add(line, Kind::Sign, &sign.as_char().to_string()),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                let is_doc = matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(name)) if name == "doc");
                let end = group.span_close().start().line;
                add(line, Kind::Sign, open);
                if !(open == "[" && is_doc) {
                    flatten(group.stream(), found);
                }
                found.push(Token { line: end, kind: Kind::Sign, text: close.to_owned() });
            }
        }
    }
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
