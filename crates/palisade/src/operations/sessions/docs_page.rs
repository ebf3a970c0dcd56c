//! Additions to the documentation page: sign-in by a browser session.
//!
//! [`meta`](super::super::meta) makes them when it renders the page of a service with sessions. Its
//! policy then allows the script by hash.

/// A place in the page of the framework, and the text that replaces it.
pub(in super::super) const DOCS_PAGE: &[(&str, &str)] = &[
    (
        r#"<div id="ui"></div>"#,
        concat!(
            r#"<div style="display: flex; gap: 1em; justify-content: end; padding: 1em; font: 1em sans-serif">"#,
            r#"<span id="who" role="status"></span><a id="sign-in" href="/auth/login?return_to=/docs">Sign in</a>"#,
            r#"<button id="sign-out" type="button" hidden>Sign out</button></div><div id="ui"></div><script>"#,
            include_str!("docs_page.js"),
            "</script>"
        ),
    ),
    ("deepLinking: true,", "deepLinking: true, requestInterceptor: addCsrfToken,"),
];
