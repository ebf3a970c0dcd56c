//! The operations of the OpenAPI document, as tests call them: with the document's example as the
//! body, on an object of a fixture.

use http::Method;
use palisade::authz::{Matrix, Scope};
use serde_json::Value;
use uuid::Uuid;

use crate::{Actor, Reply, TestService};

/// An operation of the OpenAPI document.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Method.
    pub method: Method,
    /// Path with parameters in braces.
    pub path: String,
    /// The scope that it requires.
    pub scope: Option<Scope>,
    /// Whether it takes an idempotency key.
    pub takes_key: bool,
    /// The example of its body.
    pub example: Option<Value>,
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
        let mut parameters = operation["parameters"].as_array().into_iter().flatten();
        let schema = &operation["requestBody"]["content"]["application/json; charset=utf-8"]["schema"]["$ref"];
        let example = schema.as_str().map(|schema| {
            let name = schema.rsplit('/').next().unwrap();
            let example = document["components"]["schemas"][name]["examples"][0].clone();
            assert!(example.is_object(), "{name} has no example: add one (`#[oai(example)]`)");
            example
        });
        Self {
            scope: row.scope,
            takes_key: parameters.any(|parameter| parameter["name"] == "Idempotency-Key"),
            path: path.to_owned(),
            method,
            example,
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
        let path = match (self.path.find('{'), self.path.find('}')) {
            (Some(start), Some(end)) => format!("{}{object}{}", &self.path[..start], &self.path[end + 1..]),
            _ => self.path.clone(),
        };
        let mut request = actor.request(self.method.clone(), &path);
        if self.takes_key && !headers.iter().any(|(name, _)| *name == "idempotency-key") {
            request = request.header("idempotency-key", Uuid::now_v7().to_string());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        actor.send(request).await
    }
}
