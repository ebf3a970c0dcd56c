//! Wraps every route with its row of the matrix (controls THREAT-01, AUTHN-01, AUTHZ-01, AUTHZ-02, RATE-04).
//!
//! The wrapping goes over what the router is *given*, not over a list kept by hand: hidden,
//! forgotten and future operations are all in it. What has no row is not served; the start
//! fails and says so.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use http::{HeaderValue, Method, header};
use poem::{Endpoint, EndpointExt, FromRequest, Request, RequestBody, Result, endpoint::BoxEndpoint};
use poem_openapi::{
    OpenApi,
    registry::{MetaApi, MetaOperationParam, MetaParamIn, Registry},
};
use thiserror::Error;
use tracing::Instrument as _;

use super::{Context, HasBody, Operation, ServedRoute, accept, schema::Schemas};
use crate::{
    authn::{AuthnError, Peer, Principal, Refused, Shown, Source},
    authz::{
        Action, Denied, Grant, Permit, authorize,
        matrix::{self, Callers, QuotaClass, ReadOnly, Row},
    },
    domain::ApiKeyId,
    problem::{Kind, Problem, challenge, from_framework},
    telemetry::{event, metrics, repeats::coalesced, trace::inside},
};

/// The limit of refused credentials, as callers and events are told of it.
const FAILED: &str = "failed_authentications";

type Routes = HashMap<String, HashMap<Method, BoxEndpoint<'static>>>;

/// An operation exists that no row of the matrix speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{method} {path} has no row in the route matrix, so nobody decided who may call it.\n\
     Add a row to MATRIX in src/authz/matrix.rs; CONTRIBUTING.md, \"Add an operation\", says how."
)]
pub struct UnguardedRoute {
    method: Method,
    path: String,
}

/// Operations whose every route is guarded.
pub(super) struct Guarded<T> {
    routes: Routes,
    operations: std::marker::PhantomData<fn() -> T>,
}

impl<T: OpenApi> Guarded<T> {
    pub(super) fn new(operations: T, context: &Arc<Context>) -> Result<Self, UnguardedRoute> {
        let schemas = Arc::new(Schemas::of::<T>());
        let mut routes = Routes::new();
        operations.add_routes(&mut routes);
        let mut declared = declarations(&T::meta());
        let mut guarded = Routes::new();
        for (path, methods) in routes {
            for (method, endpoint) in methods {
                let row = matrix::find(&method, &path)
                    .ok_or_else(|| UnguardedRoute { method: method.clone(), path: path.clone() })?;
                let declared = declared.remove(row.operation).unwrap_or_default();
                let guard = Guard { row, declared, context: Arc::clone(context), endpoint };
                guarded.entry(path.clone()).or_default().insert(method, guard.data(Arc::clone(&schemas)).boxed());
            }
        }
        Ok(Self { routes: guarded, operations: std::marker::PhantomData })
    }

    /// Every route there is.
    pub(super) fn served(&self) -> Vec<ServedRoute> {
        let of_path = |(path, methods): (&String, &HashMap<Method, _>)| {
            methods.keys().map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
        };
        self.routes.iter().flat_map(of_path).collect()
    }

    /// The operations' descriptions alone, to make the document from.
    pub(super) fn without_routes() -> Self {
        Self { routes: Routes::new(), operations: std::marker::PhantomData }
    }
}

impl<T: OpenApi> OpenApi for Guarded<T> {
    fn meta() -> Vec<MetaApi> {
        T::meta()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn add_routes(self, routes: &mut Routes) {
        routes.extend(self.routes);
    }
}

/// What an operation declares of its requests and answers.
#[derive(Default)]
struct Declared {
    query: HashSet<String>,
    takes_body: bool,
    /// Media types of its answers.
    answers: Vec<&'static str>,
}

/// What each operation declares.
fn declarations(apis: &[MetaApi]) -> HashMap<&'static str, Declared> {
    let operations = apis.iter().flat_map(|api| &api.paths).flat_map(|path| &path.operations);
    let query = |p: &&MetaOperationParam| p.in_type == MetaParamIn::Query;
    operations
        .filter_map(|operation| {
            let declared = Declared {
                query: operation.params.iter().filter(query).map(|p| p.name.clone()).collect(),
                takes_body: operation.request.is_some(),
                answers: operation
                    .responses
                    .responses
                    .iter()
                    .flat_map(|r| &r.content)
                    .map(|c| c.content_type)
                    .collect(),
            };
            Some((operation.operation_id?, declared))
        })
        .collect()
}

/// One route behind its checks.
struct Guard {
    row: &'static Row,
    declared: Declared,
    context: Arc<Context>,
    endpoint: BoxEndpoint<'static>,
}

impl Endpoint for Guard {
    type Output = poem::Response;

    async fn call(&self, request: Request) -> Result<Self::Output> {
        let mut response = match self.answer(request).await {
            Ok(response) => response,
            Err(error) => from_framework(error).into_poem(),
        };
        response.extensions_mut().insert(Operation { name: self.row.operation, route: self.row.path });
        Ok(response)
    }
}

impl Guard {
    async fn answer(&self, request: Request) -> Result<poem::Response> {
        if self.row.callers == Callers::Public {
            return self.serve(request).await;
        }
        let principal = self.authenticate(&request).instrument(inside!("authenticate")).await?;
        let Ok(decision) = self.context.quotas.take(&principal, self.row.quota).await else {
            return Err(Problem::new(Kind::Unavailable).into());
        };
        let outcome = match decision.refusal() {
            Some((problem, limit)) => {
                let (subject, tenant) = (principal.subject(), principal.tenant().to_string());
                event::excess_quota_exceeded(subject, &tenant, self.row.operation, limit);
                Err(problem.into())
            }
            None => self.serve_to(principal, request).await,
        };
        let mut response = outcome.unwrap_or_else(|error| from_framework(error).into_poem());
        decision.tell(response.headers_mut());
        Ok(response)
    }

    /// Who is calling. Before anything else of the request is looked at.
    async fn authenticate(&self, request: &Request) -> Result<Arc<Principal>, Problem> {
        // Without it nothing could be held against anybody; the edge gives every request one.
        let source = *request.extensions().get::<Source>().ok_or_else(|| Problem::new(Kind::Internal))?;
        let query = request.uri().query().unwrap_or_default();
        let peer = request.extensions().get::<Peer>().ok_or_else(|| Problem::new(Kind::Internal))?;
        let shown = Shown { headers: request.headers(), query, peer };
        let credential = shown.kind();
        let authenticated = self.context.authenticator.authenticate(shown, source).await;
        let result = match &authenticated {
            Ok(_) => "accepted",
            Err(AuthnError::Missing) => "missing",
            Err(AuthnError::Refused { .. }) => "refused",
            Err(AuthnError::Penalised { .. }) => "penalised",
            Err(AuthnError::Unavailable(_)) => "unavailable",
        };
        metrics::authentication(credential, result);
        authenticated.map_err(|error| unauthenticated(error, source))
    }

    async fn serve_to(&self, principal: Arc<Principal>, mut request: Request) -> Result<poem::Response> {
        let grant = self.authorize(&principal)?;
        if self.row.read_only == ReadOnly::Refused && self.context.measures.read_only() {
            let problem = Problem::new(Kind::Unavailable).detail("The service is read-only for now.");
            return Err(problem.header(header::RETRY_AFTER, HeaderValue::from(60)).into());
        }
        request.extensions_mut().insert(grant);
        self.serve(request).await
    }

    async fn serve(&self, request: Request) -> Result<poem::Response> {
        check_query(&self.declared.query, request.uri().query().unwrap_or_default())?;
        check_headers(request.headers())?;
        if self.row.quota != QuotaClass::Health && !accept::allows(request.headers(), &self.declared.answers) {
            return Err(Problem::new(Kind::NotAcceptable).into());
        }
        if !self.declared.takes_body {
            check_no_body(&request)?;
        }
        self.endpoint.call(request).await
    }

    /// Whether the caller may.
    fn authorize(&self, principal: &Arc<Principal>) -> Result<Grant, Problem> {
        authorize(self.row, Arc::clone(principal)).map_err(|denied| {
            let (kind, reason) = match denied {
                Denied::MissingScope(scope) => (Kind::InsufficientScope, scope.as_str()),
                Denied::MissingPermission => (Kind::Forbidden, "role"),
                Denied::ApiKey => (Kind::Forbidden, "api_key"),
            };
            event::authz_fail(principal.subject(), &principal.tenant().to_string(), self.row.operation, reason);
            let problem = Problem::new(kind);
            match denied {
                // RFC 6750 section 3.1: name the scope that would do.
                Denied::MissingScope(scope) => {
                    let value = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", scope.as_str());
                    match HeaderValue::try_from(value) {
                        Ok(value) => problem.header(header::WWW_AUTHENTICATE, value),
                        Err(_) => problem,
                    }
                }
                Denied::MissingPermission | Denied::ApiKey => problem,
            }
        })
    }
}

/// A parameter the operation does not declare, or one given twice, is refused: a filter that
/// silently does nothing is worse than an error (control INPUT-01).
pub(super) fn check_query(declared: &HashSet<String>, query: &str) -> Result<(), Problem> {
    let mut seen = HashSet::new();
    for (name, _) in url::form_urlencoded::parse(query.as_bytes()) {
        let code = if !declared.contains(name.as_ref()) {
            "unknown_parameter"
        } else if seen.insert(name.clone()) {
            continue;
        } else {
            "repeated_parameter"
        };
        event::input_validation_fail(code, 1);
        // An unknown name is the caller's text and is not repeated.
        let pointer = if code == "unknown_parameter" { String::new() } else { name.into_owned() };
        return Err(Problem::new(Kind::InvalidInput).at(pointer, code));
    }
    Ok(())
}

/// What is ignored here may be a request to somebody on the way (RFC 9110 section 9.3.1). It is not waited for.
pub(super) fn check_no_body(request: &Request) -> Result<(), Problem> {
    match request.extensions().get::<HasBody>() {
        Some(_) => Err(Problem::new(Kind::Malformed).detail("This operation takes no body.")),
        None => Ok(()),
    }
}

/// An idempotency key is one header of visible ASCII. The framework would take the first of two, and none where
/// one is optional and not ASCII: the request would run without what it asks for (control INPUT-10).
fn check_headers(headers: &http::HeaderMap) -> Result<(), Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let visible = |key: &HeaderValue| key.as_bytes().iter().all(u8::is_ascii_graphic);
    if keys.next().is_some_and(|key| !visible(key)) || keys.next().is_some() {
        event::input_validation_fail("idempotency_key", 1);
        return Err(Problem::new(Kind::InvalidInput).at("Idempotency-Key", "invalid"));
    }
    Ok(())
}

/// One answer for every reason a credential can be refused for; the reason goes to the log.
pub(super) fn unauthenticated(error: AuthnError, source: Source) -> Problem {
    let (kind, challenge) = match error {
        AuthnError::Missing => (Kind::Unauthenticated, challenge("Bearer")),
        AuthnError::Refused { reason, key, delay } => {
            tell(reason, key, source);
            let challenge = challenge("Bearer error=\"invalid_token\"");
            return Problem::new(Kind::Unauthenticated).header(challenge.0, challenge.1).after(delay);
        }
        AuthnError::Penalised { seconds, refused } => {
            if let Some((reason, key)) = refused {
                tell(reason, key, source);
            }
            event::excess_rate_limit_exceeded(source.0, FAILED);
            return Problem::new(Kind::RateLimited)
                .detail("Too many credentials from this address were refused.")
                .limit(FAILED)
                .header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        AuthnError::Unavailable(what) => {
            coalesced!(warn, "cannot authenticate", what);
            return Problem::new(Kind::Unavailable);
        }
    };
    Problem::new(kind).header(challenge.0, challenge.1)
}

/// The event of a refused credential.
fn tell(reason: Refused, key: Option<ApiKeyId>, source: Source) {
    let key = key.map(|key| key.to_string());
    match reason {
        Refused::Revoked => event::authn_token_reuse(source.0, key.as_deref()),
        reason => event::authn_token_invalid(&reason.to_string(), source.0, key.as_deref()),
    }
}

/// A handler's first argument: the permit for its own operation, and for no other.
impl<'a, A: Action> FromRequest<'a> for Permit<A> {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        let grant = request.extensions().get::<Grant>();
        grant.and_then(Self::from_grant).ok_or_else(|| {
            // A handler that asks for another operation's permit is a fault of this program: fail closed.
            tracing::error!(action = A::OPERATION, "no grant for this action on this route");
            Problem::new(Kind::Internal).into()
        })
    }
}
