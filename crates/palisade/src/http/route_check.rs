//! Checks of routes at startup: each has a row in the route matrix (THREAT-01), and its handler
//! takes the permit of the row's action and no other (AUTHZ-04), and its body, if any, as a
//! [`StrictJson`](super::strict_json::StrictJson) (INPUT-02).
//!
//! [`GuardedRoutes`](super::GuardedRoutes) calls [`check_route`] for every route that the router is
//! given. An error prevents startup.

use std::collections::HashMap;

use http::Method;
use thiserror::Error;

use super::{schema::UncheckedKeyword, strictness::Declared};
use crate::authz::{Callers, Matrix, Row};

/// An operation without a row in the route matrix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{method} {path} has no row in the route matrix, so its access rule is undefined.\n\
     Declare its action with `actions!`; see CONTRIBUTING.md, \"Add an operation\"."
)]
pub struct UnguardedRoute {
    method: Method,
    path: String,
}

/// Why the operations cannot be served. Prevents startup.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RoutesError {
    /// An operation is not in the route matrix (THREAT-01).
    #[error(transparent)]
    UnguardedRoute(#[from] UnguardedRoute),
    /// The handler of an operation takes another permit than that of the operation's action.
    #[error(
        "the handler of {operation} takes the permit of {found}, but the operation's action is {action}; \
         public operations take no permit"
    )]
    Permit {
        /// The `operationId`.
        operation: &'static str,
        /// The type of its action.
        action: &'static str,
        /// The types of the actions of the handler's permits.
        found: String,
    },
    /// The OpenAPI document does not show the operation, so its handler cannot be checked.
    #[error(
        "{operation} is hidden, has another operation_id than its row, or is served by code that does not declare \
         it: the document must show every operation"
    )]
    Undocumented {
        /// The `operationId` in the route matrix.
        operation: &'static str,
    },
    /// An operation takes its body by another extractor than `StrictJson` (INPUT-02).
    #[error("the body of {operation} is not checked strictly: take it as one `StrictJson<…>`, without another body")]
    Body {
        /// The `operationId`.
        operation: &'static str,
    },
    /// A request body has a schema that cannot be checked completely (INPUT-02).
    #[error(transparent)]
    UncheckedKeyword(#[from] UncheckedKeyword),
}

/// Finds the row of a route, and takes the declaration of its operation out of `declared`.
///
/// # Errors
/// The route has no row, the document does not show it, its handler takes a body that is not a
/// `StrictJson`, or another permit than that of the row's action. With another permit, each call
/// would fail with 500.
pub(super) fn check_route(
    matrix: &Matrix,
    method: &Method,
    path: &str,
    declared: &mut HashMap<&'static str, Declared>,
) -> Result<(&'static Row, Declared), RoutesError> {
    let unguarded = || UnguardedRoute { method: method.clone(), path: path.to_owned() };
    let row = matrix.find(method, path).ok_or_else(unguarded)?;
    let operation = row.operation;
    let declared = declared.remove(operation).ok_or(RoutesError::Undocumented { operation })?;
    if !declared.is_strict {
        return Err(RoutesError::Body { operation });
    }
    let needed = (!matches!(row.callers, Callers::Public | Callers::Browser)).then(|| row.action_name());
    if declared.permits.iter().copied().eq(needed) {
        return Ok((row, declared));
    }
    let found = if declared.permits.is_empty() { "no action".to_owned() } else { declared.permits.join(" and ") };
    Err(RoutesError::Permit { operation, action: row.action_name(), found })
}

#[cfg(test)]
mod tests {
    use poem_openapi::{
        ApiRequest, Object, OpenApi,
        payload::{Binary, Form, Json, PlainText},
    };

    use super::*;
    use crate::{
        authz::{
            Permit,
            actions::{GetMe, ListAuditEvents},
        },
        http::{strict_json::StrictJson, strictness::declarations},
    };

    #[derive(Object)]
    struct Member {
        name: String,
    }

    /// Has the media type that [`StrictJson`] accepts.
    #[derive(ApiRequest)]
    #[expect(dead_code, reason = "only the metadata of the handler is used")]
    enum LaxJson {
        #[oai(content_type = "application/json")]
        Body(Json<Member>),
    }

    /// The error of the routes of an API, with the rows that every service has.
    fn error_of<T: OpenApi>(api: T) -> Option<String> {
        let mut routes = HashMap::new();
        api.add_routes(&mut routes);
        let mut declared = declarations(&T::meta());
        let matrix = Matrix::of_kernel();
        let routes = routes.iter().flat_map(|(path, methods)| methods.keys().map(move |method| (method, path)));
        let checks = routes.map(|(method, path)| check_route(&matrix, method, path, &mut declared).map(drop));
        checks.collect::<Result<(), _>>().err().map(|error| error.to_string())
    }

    macro_rules! apis {
        ($($test:ident: $path:literal as $operation:literal $(($permit:ty))? $([$body:ty $(, $other:ty)?])? $($hidden:ident)? => $expected:expr;)+) => {$(
            #[test]
            fn $test() {
                struct Api;

                #[OpenApi]
                impl Api {
                    #[oai(path = $path, method = "get", operation_id = $operation $(, $hidden)?)]
                    async fn handle(&self $(, _permit: &Permit<$permit>)? $(, _body: $body $(, _other: $other)?)?) {}
                }

                let expected: Option<&str> = $expected;
                let error = error_of(Api);
                let is_expected = match (&error, expected) {
                    (Some(error), Some(expected)) => error.contains(expected),
                    (error, expected) => error.is_none() && expected.is_none(),
                };
                assert!(is_expected, "{error:?}");
            }
        )+};
    }

    apis! {
        authz_04_handler_with_the_permit_of_its_operation_starts:
            "/v1/me" as "getMe" (GetMe) => None;
        authz_04_handler_with_the_permit_of_another_action_prevents_startup:
            "/v1/me" as "getMe" (ListAuditEvents) => Some("::ListAuditEvents, but the operation's action is");
        authz_04_handler_without_a_permit_prevents_startup:
            "/v1/me" as "getMe" => Some("the handler of getMe takes the permit of no action");
        authz_04_public_handler_without_a_permit_starts:
            "/health/live" as "getLiveness" => None;
        authz_04_public_handler_with_a_permit_prevents_startup:
            "/health/live" as "getLiveness" (GetMe) => Some("public operations take no permit");
        authz_04_hidden_operation_prevents_startup:
            "/v1/me" as "getMe" (GetMe) hidden => Some("getMe is hidden");
        authz_04_operation_with_the_id_of_another_row_prevents_startup:
            "/v1/me" as "listAuditEvents" (GetMe) => Some("getMe is hidden, has another operation_id");
        threat_01_route_without_a_row_prevents_startup:
            "/v1/other" as "other" (GetMe) => Some("GET /v1/other has no row in the route matrix");
        input_02_strict_json_starts:
            "/v1/me" as "getMe" (GetMe) [StrictJson<Member>] => None;
        input_02_json_of_the_framework_prevents_startup:
            "/v1/me" as "getMe" (GetMe) [Json<Member>] => Some("the body of getMe is not checked strictly");
        input_02_json_of_a_derived_request_prevents_startup:
            "/v1/me" as "getMe" (GetMe) [LaxJson] => Some("the body of getMe is not checked strictly");
        input_02_plain_text_prevents_startup:
            "/v1/me" as "getMe" (GetMe) [PlainText<String>] => Some("the body of getMe is not checked strictly");
        input_02_form_prevents_startup:
            "/v1/me" as "getMe" (GetMe) [Form<String>] => Some("the body of getMe is not checked strictly");
        input_02_binary_body_prevents_startup:
            "/v1/me" as "getMe" (GetMe) [Binary<Vec<u8>>] => Some("the body of getMe is not checked strictly");
        input_02_lax_body_of_a_public_operation_prevents_startup:
            "/health/live" as "getLiveness" [Json<Member>] => Some("the body of getLiveness is not checked strictly");
        input_02_two_strict_bodies_prevent_startup:
            "/v1/me" as "getMe" (GetMe) [StrictJson<Member>, StrictJson<Member>] => Some("the body of getMe");
    }
}
