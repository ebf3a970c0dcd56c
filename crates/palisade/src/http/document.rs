//! Completes the OpenAPI document that poem-openapi derives from the operations (home of
//! THREAT-02).
//!
//! The route matrix adds the security requirements, quota class, data class and error responses of
//! each operation; this module adds shared headers, the problem schema and closed objects, and
//! converts OpenAPI 3.0 to 3.1. `GET /openapi.json`, `/docs` and the command `openapi` serve the
//! result.

use serde_json::{Map, Value, json};

use super::{
    strict_json::MERGE_PATCH,
    values::{MAX_TIME_CHARS, declared_names},
};
use crate::{
    authn::{API_KEYS, SESSIONS},
    authz::{Callers, DataClass, Matrix, Method, Permission, Row, Scope, StepUp},
    problem::MAX_FIELD_ERRORS,
};

/// Security scheme: access token of the OIDC issuer, with the required scopes.
const OIDC: &str = "oidc";
/// Security scheme: the same access token, for tools that cannot run an OIDC flow.
const BEARER: &str = "bearer";
const API_KEY: &str = "apiKey";
/// Security scheme: the cookie of a browser session.
const SESSION: &str = "session";
/// Media type of exports. With a recipient, the response is an encrypted file instead.
const CSV: &str = "text/csv; charset=utf-8";
/// Maximum length of the documentation page, which contains its scripts and this document.
const MAX_PAGE_CHARS: u32 = 4 * 1024 * 1024;

/// Completes `spec`, the document of poem-openapi, for a service at `public_url`.
pub(crate) fn complete(spec: &str, matrix: &Matrix, issuer: &str, public_url: &str) -> Value {
    let mut document: Value = serde_json::from_str(spec).unwrap_or_default();
    if let Some(root) = document.as_object_mut() {
        let public_url = public_url.trim_end_matches('/');
        root.insert("servers".to_owned(), json!([{ "url": public_url, "x-internal": false }]));
        // The public URL is the contact: the template knows no operator.
        root.entry("info").or_insert_with(|| json!({}))["contact"] =
            json!({ "name": "The operator", "url": public_url });
        complete_components(root, matrix, issuer);
        root.get_mut("paths").into_iter().for_each(bound_formats);
        for (path, methods) in members_mut(root, "paths") {
            for (method, operation) in methods.as_object_mut().into_iter().flatten() {
                let row = http::Method::from_bytes(method.to_uppercase().as_bytes())
                    .ok()
                    .and_then(|method| matrix.find(&method, path));
                if let (Some(row), Some(operation)) = (row, operation.as_object_mut()) {
                    complete_operation(operation, row);
                }
            }
        }
    }
    convert_to_3_1(&mut document);
    document
}

/// Converts OpenAPI 3.0, which the framework writes, to 3.1: `nullable` becomes the type `null`,
/// and `example` of a schema becomes the list `examples`, as in JSON Schema.
fn convert_to_3_1(document: &mut Value) {
    if let Some(root) = document.as_object_mut() {
        root.insert("openapi".to_owned(), json!("3.1.0"));
    }
    convert_schemas_to_3_1(document);
}

fn convert_schemas_to_3_1(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(convert_schemas_to_3_1),
        Value::Object(object) => {
            let nullable = object.remove("nullable") == Some(json!(true));
            // A property may be named `type` or `example`. An object whose `type` is a string is a
            // schema.
            if let Some(kind) = object.get("type").filter(|kind| kind.is_string()).cloned() {
                if nullable {
                    object.insert("type".to_owned(), json!([kind, "null"]));
                }
                if let Some(example) = object.remove("example") {
                    object.insert("examples".to_owned(), json!([example]));
                }
            }
            // Binary content has no schema in 3.1 (OpenAPI 3.1.1, "Considerations for File
            // Uploads").
            if object.get("schema").and_then(|schema| schema.get("format")) == Some(&json!("binary")) {
                object.remove("schema");
            }
            // The framework keeps one of two responses with the same status: add the encrypted
            // file.
            if object.contains_key(CSV) {
                object.insert("application/octet-stream".to_owned(), json!({}));
            }
            object.values_mut().for_each(convert_schemas_to_3_1);
        }
        _ => {}
    }
}

fn complete_components(root: &mut Map<String, Value>, matrix: &Matrix, issuer: &str) {
    let components = root.entry("components").or_insert_with(|| json!({}));
    let Some(components) = components.as_object_mut() else { return };
    let discovery = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let oidc = json!({
        "type": "openIdConnect",
        "openIdConnectUrl": discovery,
        "description": "Access token (RFC 9068) of the issuer, validated as RFC 8725 requires."
    });
    let bearer = json!({
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The same access token, for clients that obtain it without OpenID Connect discovery. It is validated as RFC 8725 requires."
    });
    let api_key = json!({
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "API key from `POST /v1/api-keys`, limited to the scopes it was created with."
    });
    let session = json!({
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-session",
        "description": "Cookie of a browser session from `GET /auth/login`. Other methods than GET also need the header `X-CSRF-Token`."
    });
    let session = SESSIONS.then_some((SESSION, session));
    let security = [Some((OIDC, oidc)), Some((BEARER, bearer)), API_KEYS.then_some((API_KEY, api_key)), session];
    components.insert("securitySchemes".to_owned(), security.into_iter().flatten().collect());
    let mut problem_headers = response_headers(true);
    problem_headers.insert("Retry-After".to_owned(), json!({ "$ref": "#/components/headers/RetryAfter" }));
    components.insert(
        "responses".to_owned(),
        json!({ "Problem": {
            "description": "The request failed; `code` identifies the reason.",
            "headers": problem_headers,
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } }
        }}),
    );
    components.insert("headers".to_owned(), header_components());
    // Objects are closed: requests with other members are rejected, responses contain none.
    let schemas = components.entry("schemas").or_insert_with(|| json!({}));
    for (_, schema) in schemas.as_object_mut().into_iter().flatten() {
        if schema.get("type") == Some(&json!("object"))
            && let Some(schema) = schema.as_object_mut()
        {
            schema.insert("additionalProperties".to_owned(), json!(false));
        }
    }
    for (name, values) in declared_names(matrix) {
        if let Some(schema) = schemas.get_mut(name) {
            schema["enum"] = values.into();
        }
    }
    bound_formats(schemas);
    if let Some(schemas) = schemas.as_object_mut() {
        schemas.insert("Problem".to_owned(), problem_schema());
    }
}

/// The headers that [`crate::quota`] adds to responses to authenticated callers, and the one that
/// the edge adds for pages of other origins.
fn header_components() -> Value {
    json!({
        "Access-Control-Allow-Origin": {
            "description": "Origin of the page that sent the request, if the operator lists it (`APP_HTTP__CORS_ORIGINS`). \
                            Absent for every other page.",
            "schema": { "type": "string", "maxLength": 512, "pattern": "^https?://[^/ ]+$" },
            "example": "https://app.example.com"
        },
        "RateLimit": {
            "description": "Remaining requests (r) of each quota, and seconds (t) until the quota is full again \
                            (draft-ietf-httpapi-ratelimit-headers-10). On responses to authenticated callers.",
            "schema": { "type": "string", "maxLength": 256, "pattern": "^(\"[a-z]+\";r=[0-9]+;t=[0-9]+(, )?)+$" },
            "example": "\"read\";r=99;t=1, \"tenant\";r=1999;t=1"
        },
        "RateLimitPolicy": {
            "description": "Requests (q) per window of w seconds, for each quota. On responses to authenticated callers.",
            "schema": { "type": "string", "maxLength": 256, "pattern": "^(\"[a-z]+\";q=[0-9]+;w=[0-9]+(, )?)+$" },
            "example": "\"read\";q=100;w=60, \"tenant\";q=2000;w=60"
        },
        "RetryAfter": {
            "description": "Seconds to wait before a retry, 1 or more. On 429, on 409 with `request_in_flight`, and on some 503 responses.",
            "schema": { "type": "integer", "format": "int32", "minimum": 1, "maximum": 86_400 },
            "example": 1
        }
    })
}

/// The headers of a response, with those of quotas if its operation has callers to count.
fn response_headers(has_quotas: bool) -> Map<String, Value> {
    const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
    let quotas = [("RateLimit", "RateLimit"), ("RateLimit-Policy", "RateLimitPolicy")];
    let headers = quotas.into_iter().filter(|_| has_quotas).chain([(ALLOW_ORIGIN, ALLOW_ORIGIN)]);
    let reference = |component: &str| json!({ "$ref": format!("#/components/headers/{component}") });
    headers.map(|(name, component)| (name.to_owned(), reference(component))).collect()
}

/// Schema of a problem (RFC 9457 section 3) with the extensions of this API.
fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "traceId"],
        "properties": {
            "type": { "type": "string", "pattern": "^urn:problem-type:[a-z_]+$", "maxLength": 128 },
            "title": { "type": "string", "pattern": "^[ -~]+$", "maxLength": 128 },
            "status": { "type": "integer", "format": "int32", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "pattern": "^[ -~]+$", "maxLength": 512 },
            "instance": { "type": "string", "pattern": "^[^\\u0000-\\u0020]*$", "maxLength": 256 },
            "code": { "type": "string", "pattern": "^[a-z_]+$", "maxLength": 64 },
            "traceId": { "type": "string", "pattern": "^[0-9a-f]{32}$", "maxLength": 32 },
            "limit": { "type": "string", "pattern": "^[a-z_]+$", "maxLength": 64 },
            "errors": { "type": "array", "maxItems": MAX_FIELD_ERRORS, "items": {
                "type": "object",
                "required": ["pointer", "code"],
                "properties": {
                    "pointer": { "type": "string", "pattern": "^[A-Za-z0-9/-]*$", "maxLength": 512 },
                    "code": { "type": "string", "pattern": "^[a-z_]+$", "maxLength": 64 }
                },
                "additionalProperties": false
            }}
        },
        "additionalProperties": false
    })
}

/// Adds security, `x-access`, error responses and headers to an operation.
fn complete_operation(operation: &mut Map<String, Value>, row: &Row) {
    let public = matches!(row.callers, Callers::Public | Callers::Browser);
    let scope = row.scope.map(Scope::as_str);
    let scopes: Vec<&str> = scope.into_iter().collect();
    let of_token = [json!({ OIDC: scopes }), json!({ BEARER: [] })];
    let of_key = (API_KEYS && row.callers == Callers::Authenticated).then(|| json!({ API_KEY: [] }));
    let of_session = SESSIONS.then(|| json!({ SESSION: [] }));
    let security: Vec<Value> = match row.callers {
        Callers::Browser if row.data == DataClass::Own => of_session.into_iter().collect(),
        Callers::Public | Callers::Browser => Vec::new(),
        Callers::Authenticated | Callers::NoKeys => of_token.into_iter().chain(of_key).chain(of_session).collect(),
    };
    operation.insert("security".to_owned(), security.into());
    operation.insert(
        "x-access".to_owned(),
        json!({
            "callers": row.callers.as_str(),
            "scope": scope,
            "permission": row.permission.map(Permission::as_str),
            "quota": row.quota.as_str(),
            "data": row.data.as_str(),
            "audit": row.audit,
            "whenDependencyIsDown": row.outage.as_str(),
            "maxSignInAge": row.step_up.map(StepUp::max_age),
        }),
    );
    let mut statuses = vec!["400", "405", "406", "408", "413", "414", "415", "429", "431", "500", "503"];
    if row.callers != Callers::Public {
        statuses.extend(["401", "403"]);
    }
    if row.path.contains('{') || !row.path.starts_with("/v1/") {
        statuses.push("404");
    }
    let parameter = |name: &str| {
        let mut parameters = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
        parameters.find(|parameter| parameter["name"] == name)
    };
    let key = parameter("Idempotency-Key");
    let has_key = key.is_some();
    let has_cursor = parameter("cursor").is_some();
    // The header means nothing on a read by `GET`, and every other operation takes or refuses it.
    let idempotency_key = match key {
        _ if row.method == Method::Get => None,
        Some(key) if key["required"] == true => Some("required"),
        Some(_) => Some("optional"),
        None => Some("refused"),
    };
    if let (Some(idempotency_key), Some(access)) = (idempotency_key, operation.get_mut("x-access")) {
        access["idempotencyKey"] = json!(idempotency_key);
    }
    if let (Method::Patch, Some(content)) =
        (row.method, operation.get_mut("requestBody").map(|body| &mut body["content"]))
        && let Some(types) = content.as_object_mut()
        && let Some(json) = types.values().next().cloned()
    {
        types.insert(MERGE_PATCH.to_owned(), json);
    }
    if has_key {
        statuses.push("409");
    }
    if has_key || has_cursor || operation.contains_key("requestBody") {
        statuses.push("422");
    }
    if row.method == Method::Post && row.path.contains('{') {
        statuses.push("409");
    }
    let summary = operation.get("summary").cloned().unwrap_or_default();
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    for response in responses.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if response.get("description") == Some(&json!("")) {
            response["description"] = summary.clone();
        }
    }
    if let (true, Some(responses)) = (["/docs", "/openapi.json"].contains(&row.path), responses.as_object_mut()) {
        responses.insert("304".to_owned(), json!({ "description": "The client's cached copy is current." }));
    }
    for response in responses.as_object_mut().into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        if let Some(headers) = response.entry("headers").or_insert_with(|| json!({})).as_object_mut() {
            headers.extend(response_headers(!public));
        }
    }
    for status in statuses {
        if let Some(responses) = responses.as_object_mut() {
            responses.entry(status).or_insert_with(|| json!({ "$ref": "#/components/responses/Problem" }));
        }
    }
}

/// Adds the maximum length that a format implies (INPUT-02). The framework does not publish it.
fn bound_formats(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let max_length = match members.get("format").and_then(Value::as_str) {
                Some("uuid") => Some(36),
                Some("date-time") => Some(MAX_TIME_CHARS),
                _ => None,
            };
            if let Some(max_length) = max_length {
                members.entry("maxLength").or_insert_with(|| json!(max_length));
            }
            // The documentation page is the only HTML response.
            if let Some(page) = members.get_mut("text/html; charset=utf-8").and_then(|page| page.get_mut("schema")) {
                *page = json!({ "type": "string", "format": "html", "maxLength": MAX_PAGE_CHARS });
            }
            members.values_mut().for_each(bound_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_formats),
        _ => {}
    }
}

fn members_mut<'a>(root: &'a mut Map<String, Value>, name: &str) -> impl Iterator<Item = (&'a String, &'a mut Value)> {
    root.get_mut(name).and_then(Value::as_object_mut).into_iter().flat_map(Map::iter_mut)
}
