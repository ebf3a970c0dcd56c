//! Operations of a browser on its own session: sign in, read, refresh, sign out (AUTHN-14 to 16).
//!
//! They have no permit. [`Authenticator`](crate::authn::Authenticator) checks cookie and tokens, and
//! [`check_browser_request`] the origin. Without a client in the settings, each is 404.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use poem::{Request, Result};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::Query,
    payload::{Json, Response},
};

use super::{
    Tag,
    form::{IgnoresParameters, LogoutTokenForm},
    schema::{AcrValues, BrowserSession, IssuerName, IssuerText, LocalPath, SignedOut, Target},
};
use crate::{
    authn::{
        Authenticator, AuthnError, ConnectionInfo, LoginAnswer, LoginRequest, RejectReason, SignedIn, SourceNetwork,
    },
    http::{
        Context,
        authentication::{check_browser_request, record_result, unauthenticated},
        text::Text,
    },
    problem::{Kind, Problem},
};

/// Operations of a browser.
pub(in super::super) struct Browser {
    pub(super) context: Arc<Context>,
}

#[derive(ApiResponse)]
enum Redirected {
    /// Follow `Location`. Sets the cookie of the sign-in, or of the session.
    #[oai(status = 303)]
    SeeOther(
        /// URL of the issuer, or path of this service.
        #[oai(header = "Location")]
        Text<Target>,
    ),
}

#[derive(ApiResponse)]
enum Accepted {
    /// The sign-ins are ended.
    #[oai(status = 200)]
    Ok,
}

#[OpenApi(tag = "Tag::Sessions")]
impl Browser {
    /// Begin a sign-in
    ///
    /// Redirects the browser to the issuer, and sets a cookie that only the callback of this sign-in
    /// needs. Fails with 400 if the operator did not list the path or a value of `acr_values`, or if
    /// people cannot sign in at the issuer. After a challenge (RFC 9470), send its `max_age` and
    /// `acr_values`. Fails with 403 unless it is a navigation of the whole page.
    #[oai(path = "/auth/login", method = "get", operation_id = "beginLogin")]
    async fn login(
        &self,
        request: &Request,
        /// Path to return to after the sign-in, one of those that the operator lists.
        return_to: Query<Option<Text<LocalPath>>>,
        /// Name of a further issuer. Omit it for the first one.
        issuer: Query<Option<Text<IssuerName>>>,
        /// Largest time since the person authenticated at the issuer: 0 to 86400 s. Otherwise the issuer
        /// asks the person again. A sign-in that is older fails with 401.
        #[oai(validator(minimum(value = "0"), maximum(value = "86400")))]
        max_age: Query<Option<u32>>,
        /// Values of `acr`, separated by spaces, one of which the sign-in must have.
        acr_values: Query<Option<Text<AcrValues>>>,
    ) -> Result<Response<Redirected>> {
        let caller = self.caller(request)?;
        let wanted = LoginRequest {
            return_to: return_to.0.as_deref(),
            issuer: issuer.0.as_deref(),
            max_age: max_age.0,
            acr_values: acr_values.0.as_deref(),
        };
        let begun = self.context.authenticator.begin_login(&wanted).await;
        let begun = begun.map_err(|error| caller.problem(error))?;
        let unknown = || Problem::new(Kind::InvalidInput).detail("Unknown issuer, or a path or strength not listed.");
        Ok(redirect(begun.ok_or_else(unknown)?))
    }

    /// Finish a sign-in
    ///
    /// The issuer sends the browser here. Opens a session, sets its cookie, and redirects to the path
    /// of the sign-in. An answer that this browser did not ask for, a sign-in older or weaker than it
    /// asked for, or a second use fails with 401. Further parameters are ignored.
    #[oai(path = "/auth/callback", method = "get", operation_id = "finishLogin")]
    async fn callback(
        &self,
        request: &Request,
        _others: IgnoresParameters,
        /// Authorization code (RFC 6749 section 4.1.2).
        code: Query<Option<Text<IssuerText>>>,
        /// State of the sign-in.
        state: Query<Option<Text<IssuerText>>>,
        /// Issuer (RFC 9207).
        iss: Query<Option<Text<IssuerText>>>,
        /// Error code of the issuer (RFC 6749 section 4.1.2.1).
        error: Query<Option<Text<IssuerText>>>,
    ) -> Result<Response<Redirected>> {
        let caller = self.caller(request)?;
        let text = |value: Query<Option<Text<IssuerText>>>| value.0.map(|text| text.to_string());
        let answer = LoginAnswer { code: text(code), state: text(state), iss: text(iss), is_error: error.0.is_some() };
        let signed_in = self.context.authenticator.finish_login(&answer, caller.headers, caller.source).await;
        record_result("sign_in", &signed_in);
        let signed_in = signed_in.map_err(|error| {
            // Whatever failed, this sign-in is over.
            let [no_login, _] = Authenticator::NO_COOKIES;
            caller.problem(error).header(header::SET_COOKIE, HeaderValue::from_static(no_login))
        })?;
        Ok(redirect(signed_in))
    }

    /// Get the browser's session
    ///
    /// Returns the person, the ends of the session, and the CSRF token.
    #[oai(path = "/auth/session", method = "get", operation_id = "getSession")]
    async fn session(&self, request: &Request) -> Result<Json<BrowserSession>> {
        let caller = self.caller_with_cookie(request)?;
        let state = self.context.authenticator.session_state(caller.headers, caller.source).await;
        Ok(Json(BrowserSession::from(&caller.checked(state)?)))
    }

    /// Refresh the browser's session
    ///
    /// Renews the access token, and replaces the cookie. Parallel calls get the same new cookie. For
    /// 10 seconds the replaced cookie still works; a later use ends the session. Fails with 503 while
    /// the issuer is away; the session stays.
    #[oai(path = "/auth/refresh", method = "post", operation_id = "refreshSession")]
    async fn refresh(&self, request: &Request) -> Result<Response<Json<BrowserSession>>> {
        let caller = self.caller_with_cookie(request)?;
        let state = self.context.authenticator.refresh_session(caller.headers, caller.source).await;
        let state = caller.checked(state)?;
        let view = BrowserSession::from(&state);
        Ok(Response::new(Json(view)).header(header::SET_COOKIE, state.cookie))
    }

    /// End the browser's session
    ///
    /// Ends the session on all replicas at once, and deletes the cookie. To end the session at the
    /// issuer too, open `endSessionUrl`.
    #[oai(path = "/auth/logout", method = "post", operation_id = "logout")]
    async fn logout(&self, request: &Request) -> Result<Response<Json<SignedOut>>> {
        let caller = self.caller_with_cookie(request)?;
        let url = caller.checked(self.context.authenticator.logout(caller.headers, caller.source).await)?;
        let [_, no_session] = Authenticator::NO_COOKIES;
        let signed_out = SignedOut { end_session_url: url.map(Into::into) };
        Ok(Response::new(Json(signed_out)).header(header::SET_COOKIE, no_session))
    }

    /// Sign out at the issuer
    ///
    /// The issuer calls this with a logout token. Ends the sessions that it names, and rejects the
    /// bearer tokens of the same sign-in. A logout token is accepted once; an invalid one fails with
    /// 400.
    #[oai(path = "/auth/backchannel-logout", method = "post", operation_id = "backchannelLogout")]
    async fn backchannel_logout(&self, request: &Request, body: LogoutTokenForm) -> Result<Accepted> {
        let caller = self.caller(request)?;
        let ended = self.context.authenticator.backchannel_logout(&body.0, caller.source).await;
        record_result("logout_token", &ended);
        let is_rejected = matches!(ended, Err(AuthnError::Rejected { .. }));
        ended.map_err(|error| {
            let problem = caller.problem(error);
            // The specification asks for 400.
            if is_rejected { Problem::new(Kind::InvalidInput).at("logout_token", "invalid") } else { problem }
        })?;
        Ok(Accepted::Ok)
    }
}

/// What the operations need of a request.
struct Caller<'r> {
    headers: &'r HeaderMap,
    source: SourceNetwork,
    public_url: &'r str,
}

impl Caller<'_> {
    fn problem(&self, error: AuthnError) -> Problem {
        unauthenticated(error, self.source, self.public_url, None)
    }

    /// The result, or the problem of a cookie that is not accepted.
    fn checked<T>(&self, outcome: Result<T, AuthnError>) -> Result<T, Problem> {
        record_result("session", &outcome);
        let has_ended = matches!(
            outcome,
            Err(AuthnError::Rejected {
                reason: RejectReason::SessionEnded | RejectReason::SessionUnknown | RejectReason::Revoked,
                ..
            })
        );
        outcome.map_err(|error| {
            let problem = self.problem(error);
            let [_, no_session] = Authenticator::NO_COOKIES;
            if has_ended { problem.header(header::SET_COOKIE, HeaderValue::from_static(no_session)) } else { problem }
        })
    }
}

impl Browser {
    fn caller<'r>(&'r self, request: &'r Request) -> Result<Caller<'r>, Problem> {
        let internal = || Problem::new(Kind::Internal);
        let source = *request.extensions().get::<SourceNetwork>().ok_or_else(internal)?;
        let connection = request.extensions().get::<ConnectionInfo>().ok_or_else(internal)?;
        if connection.internal || !self.context.authenticator.has_sessions() {
            return Err(Problem::new(Kind::NotFound));
        }
        Ok(Caller { headers: request.headers(), source, public_url: &self.context.public_url })
    }

    /// A caller with the cookie of a session, and no other credential, on a page of this service.
    fn caller_with_cookie<'r>(&'r self, request: &'r Request) -> Result<Caller<'r>, Problem> {
        let caller = self.caller(request)?;
        if caller.headers.contains_key(header::AUTHORIZATION) || caller.headers.contains_key("x-api-key") {
            return Err(caller.problem(RejectReason::TwoCredentials.into()));
        }
        check_browser_request(&self.context.authenticator, request, caller.source)?;
        Ok(caller)
    }
}

fn redirect(SignedIn { location, cookies }: SignedIn) -> Response<Redirected> {
    let response = Response::new(Redirected::SeeOther(location.into()));
    cookies.into_iter().fold(response, |response, cookie| response.header(header::SET_COOKIE, cookie))
}
