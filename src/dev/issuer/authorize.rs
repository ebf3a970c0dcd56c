//! The authorization endpoint: a page on which anybody picks a demo person.

use std::{fmt::Write as _, sync::Arc};

use http::{StatusCode, header};
use poem::{
    Response, handler,
    web::{Data, Form, Query},
};
use serde::Deserialize;

use super::{Provider, WEB_CLIENT, grants::Code, is_loopback_redirect, random_text};
use crate::authz::matrix::Scope;

/// An authorization request (RFC 6749 section 4.1.1, RFC 7636 section 4.3).
#[derive(Debug, Deserialize)]
pub(super) struct AuthorizeRequest {
    client_id: String,
    redirect_uri: String,
    response_type: String,
    #[serde(default)]
    scope: String,
    state: Option<String>,
    nonce: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Pick {
    subject: String,
    #[serde(flatten)]
    request: AuthorizeRequest,
}

impl AuthorizeRequest {
    /// What is wrong with it. Nobody is redirected anywhere before this is `Ok`.
    fn check(&self) -> Result<(), &'static str> {
        if self.client_id != WEB_CLIENT {
            return Err("unknown client_id");
        }
        if !is_loopback_redirect(&self.redirect_uri) {
            return Err("redirect_uri must be a loopback http address");
        }
        if self.response_type != "code" {
            return Err("response_type must be code");
        }
        let challenge = self.code_challenge.as_deref().unwrap_or_default();
        if self.code_challenge_method.as_deref() != Some("S256") || challenge.len() != 43 {
            return Err("PKCE with S256 is required");
        }
        Ok(())
    }

    /// The scopes asked for that exist.
    fn granted_scope(&self) -> String {
        let known = |s: &&str| matches!(*s, "openid" | "offline_access") || Scope::ALL.iter().any(|k| k.as_str() == *s);
        self.scope.split(' ').filter(known).collect::<Vec<_>>().join(" ")
    }
}

#[handler]
pub(super) fn page(Data(provider): Data<&Arc<Provider>>, Query(request): Query<AuthorizeRequest>) -> Response {
    if let Err(message) = request.check() {
        return refused(message);
    }
    let mut people = String::new();
    for person in &provider.people {
        // Writing to a String cannot fail.
        let _ = write!(
            people,
            "<button name=\"subject\" value=\"{}\"><b>{}</b> {} of {}</button>",
            escape(&person.subject),
            escape(&person.name),
            person.role.as_str(),
            escape(&person.tenant_name)
        );
    }
    let mut hidden = String::new();
    let fields = [
        ("client_id", Some(&request.client_id)),
        ("redirect_uri", Some(&request.redirect_uri)),
        ("response_type", Some(&request.response_type)),
        ("scope", Some(&request.scope)),
        ("state", request.state.as_ref()),
        ("nonce", request.nonce.as_ref()),
        ("code_challenge", request.code_challenge.as_ref()),
        ("code_challenge_method", request.code_challenge_method.as_ref()),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            let _ = write!(hidden, "<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value));
        }
    }
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sign in</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>\
         body{{font:16px system-ui;max-width:30rem;margin:3rem auto;padding:0 1rem}}\
         button{{display:block;width:100%;text-align:left;font:inherit;padding:.6rem;margin:.4rem 0}}</style>\
         <h1>Sign in</h1><p>Development issuer. <b>{}</b> asks for: {}</p>\
         <form method=\"post\" action=\"/authorize\">{hidden}{people}</form></html>",
        escape(&request.client_id),
        escape(&request.granted_scope())
    );
    html_page(StatusCode::OK, html)
}

#[handler]
pub(super) fn pick(Data(provider): Data<&Arc<Provider>>, Form(pick): Form<Pick>) -> Response {
    let Pick { subject, request } = pick;
    if let Err(message) = request.check() {
        return refused(message);
    }
    if provider.person(&subject).is_none() {
        return refused("no such person");
    }
    let (Ok(code), Ok(mut target)) = (random_text(), url::Url::parse(&request.redirect_uri)) else {
        return refused("cannot redirect");
    };
    let scope = request.granted_scope();
    provider.grants.remember_code(
        &code,
        Code {
            client: request.client_id,
            subject,
            redirect_uri: request.redirect_uri,
            scope,
            challenge: request.code_challenge.unwrap_or_default(),
            nonce: request.nonce,
            issued_at: provider.clock.timestamp(),
        },
    );
    target.query_pairs_mut().append_pair("code", &code);
    if let Some(state) = &request.state {
        target.query_pairs_mut().append_pair("state", state);
    }
    // RFC 9207: against mix-up of issuers.
    target.query_pairs_mut().append_pair("iss", &provider.url);
    Response::builder().status(StatusCode::SEE_OTHER).header(header::LOCATION, target.as_str()).finish()
}

fn refused(message: &str) -> Response {
    html_page(StatusCode::BAD_REQUEST, format!("<!doctype html><title>Refused</title><p>{}</p>", escape(message)))
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

/// Text as HTML text or attribute value.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
