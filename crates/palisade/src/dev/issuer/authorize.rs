//! Authorization endpoint of the development issuer (RFC 6749 section 4.1, RFC 7636).
//!
//! `GET` shows a page with one button per demo user instead of a password form. A button posts the
//! user to the same URL, which issues an authorization code and redirects.

use std::{fmt::Write as _, sync::Arc};

use http::{StatusCode, header};
use poem::{
    Response, handler,
    web::{Data, Form, Query},
};
use serde::Deserialize;

use super::{Provider, WEB_CLIENT, grants::Code, is_loopback_url, random_text};
use crate::authz::Scope;

/// An authorization request (RFC 6749 section 4.1.1, RFC 7636 section 4.3).
#[derive(Debug, Deserialize)]
pub(super) struct AuthorizeRequest {
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    response_type: String,
    #[serde(default)]
    scope: String,
    state: Option<String>,
    pub(super) nonce: Option<String>,
    #[serde(default)]
    pub(super) code_challenge: String,
    code_challenge_method: Option<String>,
    /// The ID token then has `auth_time`. The page asks for a choice in any case.
    pub(super) max_age: Option<u32>,
    /// The ID token then has the first of these as `acr`.
    pub(super) acr_values: Option<String>,
}

/// The submitted form.
#[derive(Deserialize)]
pub(super) struct Choice {
    subject: String,
}

impl AuthorizeRequest {
    /// Validates the request. No redirect happens before this returns `Ok`.
    fn validate(&self) -> Result<(), &'static str> {
        if self.client_id != WEB_CLIENT {
            return Err("unknown client_id");
        }
        if !is_loopback_url(&self.redirect_uri) {
            return Err("redirect_uri must be a loopback http address");
        }
        if self.response_type != "code" {
            return Err("response_type must be code");
        }
        if self.code_challenge_method.as_deref() != Some("S256") || self.code_challenge.len() != 43 {
            return Err("PKCE with S256 is required");
        }
        Ok(())
    }

    /// The requested scopes that exist.
    pub(super) fn granted_scope(&self, scopes: &[Scope]) -> String {
        let exists = |name: &&str| {
            matches!(*name, "openid" | "offline_access") || scopes.iter().any(|scope| scope.as_str() == *name)
        };
        self.scope.split(' ').filter(exists).collect::<Vec<_>>().join(" ")
    }
}

#[handler]
pub(super) fn sign_in_page(Data(provider): Data<&Arc<Provider>>, Query(request): Query<AuthorizeRequest>) -> Response {
    if let Err(message) = request.validate() {
        return error_page(message);
    }
    let mut people = String::new();
    for person in &provider.people {
        // Writing to a String cannot fail.
        let _ = write!(
            people,
            "<button name=\"subject\" value=\"{subject}\">{subject}</button>",
            subject = escape(&person.subject)
        );
    }
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sign in</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>\
         body{{font:16px system-ui;max-width:30rem;margin:3rem auto;padding:0 1rem}}\
         button{{display:block;width:100%;text-align:left;font:inherit;padding:.6rem;margin:.4rem 0}}</style>\
         <h1>Sign in</h1><p>Development issuer. <b>{}</b> asks for: {}</p>\
         <form method=\"post\">{people}</form></html>",
        escape(&request.client_id),
        escape(&request.granted_scope(provider.scopes))
    );
    html_page(StatusCode::OK, html)
}

#[handler]
pub(super) fn choose_user(
    Data(provider): Data<&Arc<Provider>>,
    Query(request): Query<AuthorizeRequest>,
    Form(Choice { subject }): Form<Choice>,
) -> Response {
    if let Err(message) = request.validate() {
        return error_page(message);
    }
    if provider.person(&subject).is_none() {
        return error_page("unknown subject");
    }
    let (Ok(code), Ok(mut target)) = (random_text(), url::Url::parse(&request.redirect_uri)) else {
        return error_page("cannot redirect");
    };
    target.query_pairs_mut().append_pair("code", &code);
    if let Some(state) = &request.state {
        target.query_pairs_mut().append_pair("state", state);
    }
    // RFC 9207: `iss` stops mix-up attacks between issuers.
    target.query_pairs_mut().append_pair("iss", &provider.url);
    provider.grants.store_code(&code, Code { request, subject, issued_at: provider.clock.timestamp() });
    Response::builder().status(StatusCode::SEE_OTHER).header(header::LOCATION, target.as_str()).finish()
}

fn error_page(message: &str) -> Response {
    html_page(
        StatusCode::BAD_REQUEST,
        format!("<!doctype html><title>Request rejected</title><p>{}</p>", escape(message)),
    )
}

fn html_page(status: StatusCode, html: String) -> Response {
    Response::builder()
        .status(status)
        .content_type("text/html; charset=utf-8")
        .header(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
        )
        .body(html)
}

/// Escapes text for use in HTML text and attribute values.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
