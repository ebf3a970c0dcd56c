//! Where the value of a claim is, and how an issuer's names become names of this service (AUTHN-04).
//!
//! `oidc.rs` reads these types from the settings of an issuer. `authn/identity.rs` applies them to
//! the verified claims of a token.

use std::str::FromStr;

use serde_json::{Map, Value};

/// The path of a value in a token: the name of a claim or, if it begins with `/`, a JSON pointer
/// (RFC 6901).
///
/// One part of a pointer may be `*`: the only member of an object, or the only item of an array. At
/// the end, `*~` stands for the names of the members instead of their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    path: String,
    /// Whether the value is the names of the members at `path`.
    names: bool,
}

impl ClaimPath {
    /// Looks the value up. `None` if there is none, or if `*` could stand for several.
    #[must_use]
    pub fn find<'v>(&self, claims: &'v Map<String, Value>) -> Option<&'v Value> {
        let Some(path) = self.path.strip_prefix('/') else { return claims.get(&self.path) };
        let mut parts = path.split('/');
        let first = claims.get(&unescape(parts.next()?))?;
        parts.try_fold(first, |value, part| match (part, value) {
            ("*", Value::Object(members)) if members.len() == 1 => members.values().next(),
            ("*", Value::Array(items)) if items.len() == 1 => items.first(),
            ("*", _) => None,
            _ => value.pointer(&format!("/{part}")),
        })
    }

    /// The value as a list: an array of texts, or the names of members. Empty if it is absent,
    /// `None` if it is of another type.
    #[must_use]
    pub fn list<'v>(&self, claims: &'v Map<String, Value>) -> Option<Vec<&'v str>> {
        match self.find(claims) {
            None => Some(Vec::new()),
            Some(Value::Object(members)) if self.names => Some(members.keys().map(String::as_str).collect()),
            Some(Value::Array(items)) if !self.names => items.iter().map(Value::as_str).collect(),
            Some(_) => None,
        }
    }

    /// The same, and a text counts as its parts between the separators.
    #[must_use]
    pub fn split_list<'v>(&self, claims: &'v Map<String, Value>, separator: Option<char>) -> Option<Vec<&'v str>> {
        match (self.find(claims), separator) {
            (Some(Value::String(text)), Some(separator)) => Some(text.split(separator).collect()),
            (Some(Value::String(text)), None) => Some(vec![text]),
            _ => self.list(claims),
        }
    }

    /// The value as one text, or the name of the only member.
    #[must_use]
    pub fn text<'v>(&self, claims: &'v Map<String, Value>) -> Option<&'v str> {
        match self.find(claims)? {
            Value::Object(members) if self.names && members.len() == 1 => members.keys().next().map(String::as_str),
            value => value.as_str().filter(|_| !self.names),
        }
    }

    /// Every text that the value has: itself, its items, or the names of members.
    #[must_use]
    pub fn texts<'v>(&self, claims: &'v Map<String, Value>) -> Vec<&'v str> {
        match self.find(claims) {
            Some(Value::Object(members)) if self.names => members.keys().map(String::as_str).collect(),
            _ if self.names => Vec::new(),
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            value => value.and_then(Value::as_str).into_iter().collect(),
        }
    }
}

/// The two escapes of RFC 6901 section 4, in this order.
fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

impl FromStr for ClaimPath {
    type Err = &'static str;

    /// A pointer to a claim itself is its name, so that equal paths are equal.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, names) = match text.strip_suffix("/*~") {
            Some(path) if path.starts_with('/') => (path, true),
            _ => (text, false),
        };
        if path.starts_with('/') && (path.starts_with("/*") || path.split('/').filter(|part| *part == "*").count() > 1)
        {
            return Err("expected at most one part `*`, after the name of the claim");
        }
        let name = path.strip_prefix('/').filter(|name| !name.is_empty() && !name.contains(['/', '~']));
        Ok(Self { path: name.unwrap_or(path).to_owned(), names })
    }
}

impl std::fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)?;
        if self.names { f.write_str("/*~") } else { Ok(()) }
    }
}

/// `<name of the issuer>=<name of this service>`, such as `Orders-Admins=admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename<T> {
    /// The issuer's name.
    pub theirs: String,
    /// What it means here.
    pub ours: T,
}

/// What the issuer's names mean here. Without a map they keep their meaning; with one, a name that
/// it does not list has none.
#[must_use]
pub fn rename<'a>(map: &'a [Rename<String>], names: Vec<&'a str>) -> Vec<&'a str> {
    if map.is_empty() {
        return names;
    }
    let listed = map.iter().filter(|entry| names.contains(&entry.theirs.as_str()));
    listed.map(|entry| entry.ours.as_str()).collect()
}

impl<T: FromStr> FromStr for Rename<T> {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected `<name of the issuer>=<name of this service>`";
        // The issuer's name may contain `=`, as an LDAP name does.
        let (theirs, ours) = text.rsplit_once('=').ok_or(expected)?;
        let theirs = theirs.trim();
        let ours = ours.trim().parse().map_err(|_| expected)?;
        if theirs.is_empty() { Err(expected) } else { Ok(Self { theirs: theirs.to_owned(), ours }) }
    }
}

/// A text around one variable part, such as `urn:tenant:{tenant}` or `https://login.example/{tid}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    before: String,
    /// The name in the braces.
    pub name: String,
    after: String,
}

impl Template {
    /// Reads a text with one part in braces. `None` if it has no braces.
    ///
    /// # Errors
    /// The braces are not one pair around a name.
    pub fn parse(text: &str) -> Result<Option<Self>, &'static str> {
        if !text.contains(['{', '}']) {
            return Ok(None);
        }
        let expected = "expected one name in braces, such as `{tid}`";
        let (before, rest) = text.split_once('{').ok_or(expected)?;
        let (name, after) = rest.split_once('}').ok_or(expected)?;
        if name.is_empty() || [before, name, after].iter().any(|part| part.contains(['{', '}'])) {
            return Err(expected);
        }
        Ok(Some(Self { before: before.to_owned(), name: name.to_owned(), after: after.to_owned() }))
    }

    /// The variable part of a text, if the text has this form.
    #[must_use]
    pub fn extract<'t>(&self, text: &'t str) -> Option<&'t str> {
        let part = text.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        Some(part).filter(|part| !part.is_empty())
    }

    /// Whether the other template differs in the name of its variable part only.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.before, &self.after) == (&other.before, &other.after)
    }
}

impl FromStr for Template {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)?.ok_or("expected one name in braces, such as `{tenant}`")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> ClaimPath {
        text.parse().unwrap()
    }

    #[test]
    fn authn_04_wildcard_stands_for_exactly_one_member() {
        let found = |text: &str, claims: Value| path(text).text(claims.as_object().unwrap()).map(str::to_owned);
        let one = Some("T".to_owned());
        assert_eq!(found("/organization/*/id", json!({ "organization": { "acme": { "id": "T" } } })), one);
        assert_eq!(found("/organization/*", json!({ "organization": ["T"] })), one);
        assert_eq!(found("/organization/*~", json!({ "organization": { "T": {} } })), one);
        let two = json!({ "organization": { "acme": { "id": "T" }, "beta": {} } });
        for text in ["/organization/*/id", "/organization/*~"] {
            for none in [two.clone(), json!({}), json!({ "organization": {} }), json!({ "organization": "T" })] {
                assert_eq!(found(text, none.clone()), None, "{text} {none}");
            }
        }
        assert_eq!(found("/organization/*", json!({ "organization": ["T", "U"] })), None);
        for wrong in ["/*", "/*/id", "/*~", "/a/*/b/*", "/a/*/*"] {
            assert!(wrong.parse::<ClaimPath>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn authn_04_names_of_members_are_a_list() {
        let claims = json!({ "roles": { "sales": { "1": "x" }, "viewer": {} }, "flat": ["a"], "text": "a b" });
        let claims = claims.as_object().unwrap();
        assert_eq!(path("/roles/*~").list(claims), Some(vec!["sales", "viewer"]));
        assert_eq!(path("/flat/*~").list(claims), None);
        assert_eq!(path("roles").list(claims), None);
        assert_eq!(path("text").list(claims), None);
        assert_eq!(path("text").split_list(claims, Some(' ')), Some(vec!["a", "b"]));
        assert_eq!(path("text").split_list(claims, None), Some(vec!["a b"]));
        assert_eq!(path("absent").list(claims), Some(vec![]));
    }

    #[test]
    fn authn_04_renamed_names_replace_the_issuers() {
        let map: Vec<Rename<String>> =
            ["Orders-Admins=admin", "CN=Sales,OU=x=sales"].map(|text| text.parse().unwrap()).into();
        assert_eq!(rename(&map, vec!["admin", "Orders-Admins"]), ["admin"]);
        assert_eq!(rename(&map, vec!["admin", "sales"]), Vec::<&str>::new());
        assert_eq!(rename(&map, vec!["CN=Sales,OU=x"]), ["sales"]);
        assert_eq!(rename(&[], vec!["admin"]), ["admin"]);
        assert!("admin".parse::<Rename<String>>().is_err() && "=admin".parse::<Rename<String>>().is_err());
    }

    #[test]
    fn authn_04_templates_have_one_variable_part() {
        let template: Template = "https://login.example/{tid}/v2.0".parse().unwrap();
        assert_eq!(template.extract("https://login.example/T/v2.0"), Some("T"));
        for other in ["https://login.example//v2.0", "https://login.example/T/v2.0/", "https://login.example/T", "T"] {
            assert_eq!(template.extract(other), None, "{other}");
        }
        assert!(template.is_like(&"https://login.example/{tenantid}/v2.0".parse().unwrap()));
        for wrong in ["{}", "{a}{b}", "}a{", "{a", "a}", "none"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }
}
