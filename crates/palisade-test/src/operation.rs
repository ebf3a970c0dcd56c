//! The operations of the OpenAPI document, as tests call them: with the document's example as the
//! body, on an object of a fixture.

use std::fmt;

use http::Method;
use palisade::authz::{Matrix, Row};
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
    /// Names of the parameters in its query.
    pub query: Vec<String>,
    /// The example of its body.
    pub example: Option<Value>,
    /// The schema of its body, with each reference replaced by its target.
    pub schema: Value,
    /// Names of all properties in its successful responses.
    pub returned: Vec<String>,
    /// Whether its successful responses have a body.
    pub has_response_body: bool,
}

impl Operation {
    /// Every operation, sorted by path and method.
    pub fn all(service: &TestService) -> Vec<Self> {
        let document = service.document("https://login.example.com", "https://api.example.com");
        let matrix = service.matrix();
        let mut all = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let methods = methods.as_object().unwrap().iter();
            all.extend(methods.map(|(method, operation)| Self::parse(&document, &matrix, method, path, operation)));
        }
        all.sort_by_key(|operation| (operation.path.clone(), operation.method.to_string()));
        all
    }

    /// The operations on an existing object. `PUT` creates the caller's own object instead.
    pub fn all_with_object(service: &TestService) -> Vec<Self> {
        let mut all = Self::all(service);
        all.retain(|operation| operation.has_object() && operation.method != Method::PUT);
        all
    }

    fn parse(document: &Value, matrix: &Matrix, method: &str, path: &str, operation: &Value) -> Self {
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let row = matrix.find(&method, path).unwrap();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let names = |place: &str| -> Vec<String> {
            let of_place = parameters.clone().filter(|parameter| parameter["in"] == place);
            of_place.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
        };
        let schema = resolved(document, &operation["requestBody"]["content"][JSON]["schema"]);
        let example = schema.is_object().then(|| schema["examples"][0].clone());
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
        Self {
            row,
            takes_key: names("header").iter().any(|name| name == "Idempotency-Key"),
            query: names("query"),
            path: path.to_owned(),
            method,
            example,
            schema,
            returned,
            has_response_body,
        }
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

    /// A request without a body.
    pub fn request(&self, actor: &Actor, object: &str) -> reqwest::RequestBuilder {
        actor.request(self.method.clone(), &self.path_of(object))
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
