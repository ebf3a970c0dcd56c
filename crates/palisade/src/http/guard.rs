//! The request pipeline: all checks between the router and an operation.
//!
//! [`GuardedRoutes`] wraps every route with its row of the route matrix. It wraps the routes that
//! the router is *given*, not a list kept by hand, so it covers hidden, forgotten and future
//! operations. A route without a row prevents startup, and so does a handler that takes the permit of
//! another action ([`RoutesError`]). [`Guard`] runs these steps
//! for each request, in order. The first failing step determines the response:
//!
//! | step | problem |
//! |---|---|
//! | 1. authenticate the caller | 401; 403 for its tenant; 429 after too many failures; 503 if it cannot decide |
//! | 2. count against the quotas of principal and tenant | 429; 503 if the quota store is down |
//! | 3. authorize: scope, role and sign-in for the operation | 403; 401 for the sign-in |
//! | 4. read-only mode | 503 |
//! | 5. [request strictness](super::strictness): INPUT-01, INPUT-06 | 400, 406 |
//! | 6. permit, extracted as the handler's first argument | none: the start checks its action |
//!
//! Public operations run step 5 only. Those of browsers are counted by session or network before it,
//! and check their cookie or token themselves. After the permit, a handler's arguments parse the rest of the
//! request, such as the body ([`StrictJson`](super::strict_json::StrictJson)).
//!
//! Home of AUTHN-01 and RATE-04. Step 1 is in [`super::authentication`].

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, EndpointExt, Request, RequestBody, Result, endpoint::BoxEndpoint};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions, OpenApi,
    registry::{MetaApi, Registry},
};
use tokio::{sync::mpsc, time::timeout};
use tracing::Instrument as _;

use super::{
    Constraints, Context, Operation, ServedRoute,
    authentication::{authenticate, check_navigation},
    challenge::{ChallengeError, Demand, challenge},
    route_check::{RoutesError, check_route},
    schema::Schemas,
    strictness::{Declared, declarations},
    values,
};
use crate::{
    authn::{Principal, SourceNetwork},
    authz::{
        Action, Denied, Grant, OpenTransactions, Permit, RequestGrant, authorize,
        matrix::{Callers, DataClass, QuotaClass, ReadOnly, Row, StepUp},
    },
    db::DbError,
    http::from_framework,
    model::{ClientNetwork, TenantId},
    problem::{Kind, Problem},
    telemetry::{event, trace::child_span},
};

/// How long a response waits for the rollback of its transaction.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

type Routes = HashMap<String, HashMap<Method, BoxEndpoint<'static>>>;

/// A set of operations, each route wrapped in a [`Guard`].
pub(crate) struct GuardedRoutes<T> {
    routes: Routes,
    operations: std::marker::PhantomData<fn() -> T>,
}

impl<K: OpenApi, O: OpenApi> GuardedRoutes<(K, O)> {
    /// Guards the routes of kernel and service. A route must be declared by the part that serves it,
    /// so that the service cannot replace a handler of the kernel.
    pub(crate) fn new((kernel, service): (K, O), context: &Arc<Context>) -> Result<Self, RoutesError> {
        let schemas = Arc::new(Schemas::new::<(K, O)>(&values::declared_names(&context.matrix))?);
        let mut routes = Routes::new();
        guard_routes(kernel, context, &schemas, &mut routes)?;
        guard_routes(service, context, &schemas, &mut routes)?;
        Ok(Self { routes, operations: std::marker::PhantomData })
    }
}

/// Adds the routes of one part to `guarded`.
fn guard_routes<P: OpenApi>(
    part: P,
    context: &Arc<Context>,
    schemas: &Arc<Schemas>,
    guarded: &mut Routes,
) -> Result<(), RoutesError> {
    let mut routes = Routes::new();
    part.add_routes(&mut routes);
    let mut declared = declarations(&P::meta());
    for (path, methods) in routes {
        for (method, endpoint) in methods {
            let (row, declared) = check_route(&context.matrix, &method, &path, &mut declared)?;
            let guard = Guard { row, declared, context: Arc::clone(context), schemas: Arc::clone(schemas), endpoint };
            guarded.entry(path.clone()).or_default().insert(method, guard.boxed());
        }
    }
    Ok(())
}

impl<T: OpenApi> GuardedRoutes<T> {
    /// Lists all routes, as the router has them.
    pub(crate) fn list_routes(&self) -> Vec<ServedRoute> {
        let routes_of_path = |(path, methods): (&String, &HashMap<Method, _>)| {
            methods.keys().map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
        };
        self.routes.iter().flat_map(routes_of_path).collect()
    }

    /// The metadata of the operations without routes, for the OpenAPI document.
    pub(crate) fn metadata_only() -> Self {
        Self { routes: Routes::new(), operations: std::marker::PhantomData }
    }
}

impl<T: OpenApi> OpenApi for GuardedRoutes<T> {
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

/// One route with its checks. The module header lists them in order.
struct Guard {
    row: &'static Row,
    declared: Declared,
    context: Arc<Context>,
    schemas: Arc<Schemas>,
    endpoint: BoxEndpoint<'static>,
}

impl Endpoint for Guard {
    type Output = poem::Response;

    async fn call(&self, request: Request) -> Result<Self::Output> {
        let mut response = self.run(request).await.unwrap_or_else(|error| from_framework(error).into_poem());
        let logged_parameters = self.context.logged_parameters;
        response.extensions_mut().insert(Operation {
            name: self.row.operation,
            route: self.row.path,
            logged_parameters,
        });
        Ok(response)
    }
}

impl Guard {
    /// Runs the steps. Responses to authenticated callers carry the state of their quotas.
    async fn run(&self, request: Request) -> Result<poem::Response> {
        match self.row.callers {
            Callers::Browser if self.row.quota == QuotaClass::Credential => return self.count_and_serve(request).await,
            Callers::Public | Callers::Browser => return self.check_and_serve(request).await,
            Callers::Authenticated | Callers::NoKeys => {}
        }
        let authenticate = authenticate(&self.context, self.row.scope, &request);
        let principal = authenticate.instrument(child_span!("authenticate")).await?;
        let tenant = principal.tenant().to_string();
        let Ok(decision) = self.context.quotas.take(&principal, self.row.quota).await else {
            return Err(Problem::new(Kind::Unavailable).into());
        };
        let outcome = match decision.rejection() {
            Some((problem, limit)) => {
                event::excess_quota_exceeded(principal.subject(), &tenant, self.row.operation, limit);
                Err(problem.into())
            }
            None => self.authorize_and_serve(Arc::clone(&principal), request).await,
        };
        let mut response = outcome.unwrap_or_else(|error| from_framework(error).into_poem());
        // No such object, or not for this caller: guessed ids are found by these events.
        if response.status() == StatusCode::NOT_FOUND && self.row.path.contains('{') {
            event::authz_fail(principal.subject(), &tenant, self.row.operation, "object");
        }
        decision.add_headers(response.headers_mut());
        Ok(response)
    }

    /// Counts a call without a principal: by the browser session that it is about, otherwise by the
    /// network of the client. A sign-in counts by network whatever cookie it has, since cookies of ended
    /// sessions are many.
    async fn count_and_serve(&self, request: Request) -> Result<poem::Response> {
        let source = *request.extensions().get::<SourceNetwork>().ok_or_else(|| Problem::new(Kind::Internal))?;
        check_navigation(&request, source)?;
        let is_of_session = self.row.data == DataClass::Own;
        let of_session = is_of_session.then(|| self.context.authenticator.session_bucket(request.headers())).flatten();
        let network = ClientNetwork::narrowest(source.0);
        let of_network = || (TenantId::from_uuid(uuid::Uuid::nil()), format!("network:{network}"));
        let (tenant, subject) = of_session.unwrap_or_else(of_network);
        let decision = self.context.quotas.take_unauthenticated((tenant, &subject)).await;
        let outcome = match decision.rejection() {
            Some((problem, limit)) => {
                event::excess_rate_limit_exceeded(source.0, limit);
                Err(problem.into())
            }
            None => self.check_and_serve(request).await,
        };
        let mut response = outcome.unwrap_or_else(|error| from_framework(error).into_poem());
        decision.add_headers(response.headers_mut());
        Ok(response)
    }

    /// Steps 3 and 4. Attaches the grant, from which step 6 makes the permit.
    async fn authorize_and_serve(&self, principal: Arc<Principal>, mut request: Request) -> Result<poem::Response> {
        let (transactions, mut all_ended) = mpsc::channel(1);
        let grant = self.authorize(&principal, transactions)?;
        if self.row.read_only == ReadOnly::Refused && self.context.overrides.is_read_only() {
            let problem = Problem::new(Kind::Unavailable).detail("The service is read-only for now.");
            return Err(problem.header(header::RETRY_AFTER, HeaderValue::from(60)).into());
        }
        request.extensions_mut().insert(RequestGrant::new(grant));
        let outcome = self.check_and_serve(request).await;
        // A transaction that did not commit rolls back first: otherwise a retry with the same
        // idempotency key could find it open (INPUT-10). An error means that the database is slow.
        let _ = timeout(ROLLBACK_TIMEOUT, all_ended.recv()).await;
        outcome
    }

    /// Step 5, then the operation.
    async fn check_and_serve(&self, mut request: Request) -> Result<poem::Response> {
        self.declared.check(&mut request, self.row.quota).await?;
        if self.declared.takes_body {
            request.extensions_mut().insert(Arc::clone(&self.schemas));
        }
        self.endpoint.call(request).await.map_err(|error| name_violation(error, self.context.constraints))
    }

    /// Step 3: decides by the operation's row and the role policy, and records a denial.
    fn authorize(&self, principal: &Arc<Principal>, transactions: OpenTransactions) -> Result<Grant, Problem> {
        let rights = self.context.matrix.rights();
        let now = self.context.clock.timestamp();
        authorize(rights, self.row, Arc::clone(principal), transactions, now).map_err(|denied| {
            let (kind, reason) = match denied {
                Denied::MissingScope(scope) => (Kind::InsufficientScope, scope.as_str()),
                Denied::MissingPermission => (Kind::Forbidden, "role"),
                Denied::ApiKey => (Kind::Forbidden, "api_key"),
                Denied::Actor => (Kind::Forbidden, "actor"),
                Denied::SignIn(_) => (Kind::SignInRequired, "sign_in"),
            };
            event::authz_fail(principal.subject(), &principal.tenant().to_string(), self.row.operation, reason);
            let problem = Problem::new(kind);
            match denied {
                // RFC 6750 section 3.1: `scope` names the scope that the operation requires.
                Denied::MissingScope(scope) => {
                    let error = Some(ChallengeError::InsufficientScope);
                    let value = challenge(&self.context.public_url, error, Some(scope));
                    problem.header(header::WWW_AUTHENTICATE, value)
                }
                Denied::SignIn(fault) => {
                    let max_age = self.row.step_up.map(StepUp::max_age).filter(|_| fault.age);
                    let acr_values = fault.strength.then(|| principal.strong_acr_values());
                    let error = Some(ChallengeError::InsufficientUserAuthentication);
                    let demand = Demand { max_age, acr_values, scope: None };
                    problem.header(header::WWW_AUTHENTICATE, challenge(&self.context.public_url, error, demand))
                }
                Denied::MissingPermission | Denied::ApiKey | Denied::Actor => problem,
            }
        })
    }
}

/// Replaces the error of a violated constraint by the problem that the service declared for it.
fn name_violation(error: poem::Error, constraints: Constraints) -> poem::Error {
    let error = match error.downcast::<DbError>() {
        Ok(error) => error,
        Err(error) => return error,
    };
    let declared = match &error {
        DbError::Constraint { name, .. } => constraints.iter().find(|(constraint, _)| constraint == name),
        _ => None,
    };
    declared.map_or_else(|| error.into(), |(_, problem)| problem()).into()
}

/// Step 6: a handler's first argument is the permit for its own operation, and for no other. The
/// request owns it, so no handler keeps it.
///
/// To the framework it is a security scheme with the name of the action's type, so that
/// [`check_route`] finds it in the metadata. The OpenAPI document gets the real schemes instead.
impl<'a, A: Action> ApiExtractor<'a> for &'a Permit<A> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn security_schemes() -> Vec<&'static str> {
        vec![std::any::type_name::<A>()]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let grant = request.extensions().get::<RequestGrant>();
        grant.and_then(RequestGrant::permit).ok_or_else(|| {
            // The start refuses such a handler. Fail closed in any case.
            tracing::error!(
                action = std::any::type_name::<A>(),
                "handler takes a permit that its route does not grant"
            );
            Problem::new(Kind::Internal).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::actions::GetMe;

    /// Implemented once for most types, and twice for extractors: then the call is ambiguous.
    trait NotExtracted<Reason> {
        fn check() {}
    }

    struct IsExtractor;

    impl<T> NotExtracted<()> for T {}
    impl<T: for<'a> ApiExtractor<'a>> NotExtracted<IsExtractor> for T {}

    /// A handler that owned its permit could keep it for a request of another caller. With such an
    /// extractor, this does not compile.
    #[test]
    fn authz_04_handlers_borrow_their_permit() {
        <Permit<GetMe> as NotExtracted<_>>::check();
    }

    #[test]
    fn input_08_only_declared_constraints_are_problems_of_the_caller() {
        const DECLARED: Constraints = &[("known", || Problem::new(Kind::Conflict))];
        let code_of = |name: &str| {
            let violation = DbError::Constraint { name: name.to_owned(), source: sqlx::Error::RowNotFound };
            from_framework(name_violation(violation.into(), DECLARED)).code()
        };
        assert_eq!(code_of("known"), "conflict");
        assert_eq!(code_of("unknown"), "internal");
        let other = name_violation(Problem::new(Kind::NotFound).into(), DECLARED);
        assert_eq!(from_framework(other).code(), "not_found");
    }
}
