//! The operations of the OpenAPI document, as tests call them: with the document's example as the
//! body, on an object of a fixture.

use std::fmt;

use http::Method;
use palisade::authz::{Callers, Matrix, Row};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Actor, Reply, TestService};

/// The media type of bodies, as the document writes it.
const JSON: &str = "application/json; charset=utf-8";

/// An operation of the OpenAPI document.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Method.
    pub method: Method,
    /// Path with parameters in braces.
    pub path: String,
    /// Its row of the route matrix.
    pub row: &'static Row,
    /// Whether it takes an idempotency key.
    pub takes_key: bool,
    /// The parameters in its query.
    pub query: Vec<QueryParameter>,
    /// The example of its body.
    pub example: Option<Value>,
    /// The schema of its body, with each reference replaced by its target.
    pub schema: Value,
    /// Names of all properties in its successful responses.
    pub returned: Vec<String>,
    /// Whether its successful responses have a body.
    pub has_response_body: bool,
}

/// A parameter in the query of an operation.
#[derive(Clone, Debug)]
pub struct QueryParameter {
    /// Name.
    pub name: String,
    /// Values from the document: examples, listed values, the default, the maximum, or some of the
    /// format.
    pub values: Vec<String>,
}

impl Operation {
    /// Every operation, sorted by path and method, except those that a browser calls with a cookie.
    pub fn all(service: &TestService) -> Vec<Self> {
        let document = service.document("https://login.example.com", "https://api.example.com");
        let matrix = service.matrix();
        let mut all = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let methods = methods.as_object().unwrap().iter();
            let is_of_browser = |method: &str| {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                matrix.find(&method, path).unwrap().callers == Callers::Browser
            };
            let methods = methods.filter(|(method, _)| !is_of_browser(method));
            all.extend(methods.map(|(method, operation)| Self::parse(&document, &matrix, method, path, operation)));
        }
        all.sort_by_key(|operation| (operation.path.clone(), operation.method.to_string()));
        all
    }

    /// The operations on an object. A `PUT` may create the caller's own object.
    pub fn all_with_object(service: &TestService) -> Vec<Self> {
        let mut all = Self::all(service);
        all.retain(Self::has_object);
        all
    }

    fn parse(document: &Value, matrix: &Matrix, method: &str, path: &str, operation: &Value) -> Self {
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let row = matrix.find(&method, path).unwrap();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let in_place = |place: &'static str| parameters.clone().filter(move |parameter| parameter["in"] == place);
        let takes_key = in_place("header").any(|parameter| parameter["name"] == "Idempotency-Key");
        let query = in_place("query").map(|parameter| QueryParameter::parse(document, parameter)).collect();
        let content = &operation["requestBody"]["content"];
        let of_patch = (method == Method::PATCH).then_some("application/merge-patch+json");
        assert!(
            content.as_object().is_none_or(|types| types.keys().eq([JSON].into_iter().chain(of_patch))),
            "the body of {method} {path} is not JSON, or not only: take a `StrictJson`"
        );
        let schema = resolved(document, &content[JSON]["schema"]);
        let example = content.is_object().then(|| schema["examples"][0].clone());
        assert!(
            example.as_ref().is_none_or(Value::is_object),
            "the body of {method} {path} has no example: add one (`#[oai(example)]`)"
        );
        let mut returned = Vec::new();
        let mut has_response_body = false;
        for (status, response) in operation["responses"].as_object().unwrap() {
            if status.starts_with('2') {
                has_response_body |= response["content"].is_object();
                collect_properties(&resolved(document, &response["content"][JSON]["schema"]), &mut returned);
            }
        }
        returned.sort();
        returned.dedup();
        Self { row, takes_key, query, path: path.to_owned(), method, example, schema, returned, has_response_body }
    }

    /// Whether its path has a parameter.
    pub fn has_object(&self) -> bool {
        self.path.contains('{')
    }

    /// Whether it is a `GET`.
    pub fn is_read(&self) -> bool {
        self.method == Method::GET
    }

    /// Its path with this object as the parameter.
    pub fn path_of(&self, object: &str) -> String {
        match (self.path.find('{'), self.path.find('}')) {
            (Some(start), Some(end)) => format!("{}{object}{}", &self.path[..start], &self.path[end + 1..]),
            _ => self.path.clone(),
        }
    }

    /// Calls the operation with the document's example, on an object if it takes one.
    pub async fn call(&self, actor: &Actor, object: &str) -> Reply {
        self.call_with(actor, object, self.example.as_ref(), &[]).await
    }

    /// Calls the operation with any body and headers.
    pub async fn call_with(
        &self,
        actor: &Actor,
        object: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Reply {
        let mut request = self.request(actor, object);
        if let Some(body) = body {
            request = request.json(body);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // An unused key, unless the headers have one.
        if self.takes_key && !headers.iter().any(|(name, _)| *name == "idempotency-key") {
            request = request.header("idempotency-key", Uuid::now_v7().to_string());
        }
        actor.send(request).await
    }

    /// Calls the operation without a body, with this parameter in its query.
    pub async fn call_with_query(&self, actor: &Actor, object: &str, name: &str, value: &str) -> Reply {
        let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        let path = format!("{}?{name}={value}", self.path_of(object));
        actor.send(actor.request(self.method.clone(), &path)).await
    }

    /// A request without a body.
    pub fn request(&self, actor: &Actor, object: &str) -> reqwest::RequestBuilder {
        actor.request(self.method.clone(), &self.path_of(object))
    }
}

impl QueryParameter {
    fn parse(document: &Value, parameter: &Value) -> Self {
        let schema = resolved(document, &parameter["schema"]);
        let schema = if schema["items"].is_object() { &schema["items"] } else { &schema };
        let lists = [&schema["examples"], &schema["enum"]].into_iter().filter_map(Value::as_array).flatten();
        let single = [&parameter["example"], &schema["example"], &schema["default"], &schema["maximum"]];
        let mut values: Vec<String> = lists.chain(single).filter_map(scalar).collect();
        values.extend(schema["type"].as_str().filter(|kind| *kind == "boolean").map(|_| "true".to_owned()));
        let of_format: &[&str] = match schema["format"].as_str() {
            Some("date") => &["2000-01-01", "2100-01-01"],
            Some("date-time") => &["2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"],
            _ => &[],
        };
        values.extend(of_format.iter().map(|value| (*value).to_owned()));
        Self { name: parameter["name"].as_str().unwrap().to_owned(), values }
    }
}

/// The value as a query has it, if it is no object and no array.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        // The document has bounds of integers as floats.
        Value::Number(number) => number.as_f64().map(|number| number.to_string()),
        _ => None,
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// The schema with each `$ref` replaced by its target, and each `allOf` by one object.
fn resolved(document: &Value, schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let mut all = Map::new();
            let parts = members.get("allOf").and_then(Value::as_array).into_iter().flatten();
            let target = members.get("$ref").and_then(Value::as_str).and_then(|reference| {
                let pointer = reference.strip_prefix('#')?;
                document.pointer(pointer)
            });
            for part in target.into_iter().chain(parts) {
                if let Value::Object(part) = resolved(document, part) {
                    all.extend(part);
                }
            }
            let others = members.iter().filter(|(name, _)| !["$ref", "allOf"].contains(&name.as_str()));
            all.extend(others.map(|(name, member)| (name.clone(), resolved(document, member))));
            Value::Object(all)
        }
        Value::Array(items) => items.iter().map(|item| resolved(document, item)).collect(),
        other => other.clone(),
    }
}

fn collect_properties(schema: &Value, found: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        found.push(name.clone());
        collect_properties(property, found);
    }
    if schema["items"].is_object() {
        collect_properties(&schema["items"], found);
    }
}
