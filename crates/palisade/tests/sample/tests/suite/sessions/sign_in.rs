//! Sign-in at the development issuer (AUTHN-14): the whole flow, and answers that this browser did not
//! ask for.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::{SESSIONS, admin, signed_in, start};
use crate::support::{ACME, Browser, SERVICE, assert_not_in_database};

#[tokio::test]
async fn authn_14_sign_in_opens_a_session_without_tokens_in_the_browser() {
    let app = start().await;
    let mut browser = Browser::new(&app);
    let authorization = browser.begin("/auth/login?return_to=/").await;
    let parameter = |name: &str| authorization.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
    assert_eq!(parameter("response_type"), "code");
    assert_eq!(parameter("code_challenge_method"), "S256");
    assert_eq!(parameter("redirect_uri"), format!("http://{}/auth/callback", app.address));
    assert_eq!([parameter("state").len(), parameter("nonce").len(), parameter("code_challenge").len()], [43; 3]);
    let callback = browser.choose(&authorization, &admin()).await;
    let reply = browser.get(&callback).await;
    assert_eq!(reply.status, 303, "{reply:#?}");
    assert_eq!(reply.header("location"), Some("/"));
    assert_eq!(reply.event("session_created")["subject"], *admin().subject);
    let cookies: Vec<&str> = reply.headers.get_all("set-cookie").iter().map(|it| it.to_str().unwrap()).collect();
    let (value, attributes) = cookies[0].split_once(';').unwrap();
    assert_eq!(value.len(), "__Host-session=".len() + 112);
    assert_eq!(attributes, " Path=/; Max-Age=43200; Secure; HttpOnly; SameSite=Lax");
    assert_eq!(cookies[1], "__Host-login=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax");

    let reply = browser.get("/auth/session").await;
    assert!(!reply.text.contains(".eyJ"), "the page sees a token: {reply:#?}");
    let session = reply.ok(200);
    assert_eq!(session["user"], *admin().subject);
    assert_eq!(session["tenantId"], ACME.id.to_string());
    assert_eq!(session["roles"], json!(["admin"]));
    let me = browser.get("/v1/me").await.ok(200);
    assert_eq!(
        (&me["subject"], &me["kind"], &me["clientId"]),
        (&json!(*admin().subject), &json!("user"), &json!("demo-web"))
    );
    browser.get("/v1/notes").await.ok(200);
}

#[tokio::test]
async fn authn_14_answer_that_the_browser_did_not_ask_for_is_refused() {
    let app = start().await;
    let mut browser = Browser::new(&app);
    for (name, part, change) in [
        ("no state", "state", (&|c: &str| c.replace("state=", "session_state=")) as &dyn Fn(&str) -> String),
        ("another state", "state", &|c| c.replace("state=", "state=x")),
        ("another issuer", "iss", &|c| c.replace("&iss=http", "&iss=https")),
        ("no issuer", "iss", &|c| c.split("&iss=").next().unwrap().to_owned()),
        ("an error of the issuer", "denied", &|c| c.replace("code=", "error=access_denied&error_description=")),
        ("no code", "code", &|c| c.replace("code=", "scope=")),
        ("another code", "code", &|c| c.replace("code=", "code=x")),
    ] {
        let authorization = browser.begin("/auth/login").await;
        let callback = browser.choose(&authorization, &admin()).await;
        let reply = browser.get(&change(&callback)).await;
        assert_eq!(reply.problem(401), "unauthenticated", "{name}");
        assert_eq!(reply.event("authn_token_invalid")["claim"], part, "{name}");
        assert!(browser.cookies.is_empty(), "{name}: {:?}", browser.cookies);
    }
}

#[tokio::test]
async fn authn_14_sign_in_is_bound_to_its_browser_and_used_once() {
    let app = start().await;
    let mut browser = Browser::new(&app);
    let authorization = browser.begin("/auth/login").await;
    let callback = browser.choose(&authorization, &admin()).await;
    // An attacker makes another browser finish it: login CSRF.
    let mut other = Browser::new(&app);
    assert_eq!(other.get(&callback).await.event("authn_token_invalid")["claim"], "cookie");
    other.begin("/auth/login").await;
    assert_eq!(other.get(&callback).await.event("authn_token_invalid")["claim"], "state");
    let login = browser.cookies.clone();
    assert_eq!(browser.get(&callback).await.status, 303);
    let mut replay = Browser::new(&app);
    replay.cookies = login;
    assert_eq!(replay.get(&callback).await.event("authn_token_invalid")["claim"], "replay");
    assert!(!replay.cookies.contains_key("__Host-session"));
    // Two cookies of the name: one may be from another page of the host.
    let mut twice = Browser::new(&app);
    let authorization = twice.begin("/auth/login").await;
    let callback = twice.choose(&authorization, &admin()).await;
    let cookie = format!("__Host-login={0}; __Host-login={0}", twice.cookies["__Host-login"]);
    let request = app.anonymous().request(Method::GET, &callback).header("cookie", cookie);
    assert_eq!(twice.send(request).await.event("authn_token_invalid")["claim"], "cookie");
    // The same with a changed cookie: the path to return to is under the tag.
    let mut changed = Browser::new(&app);
    let authorization = changed.begin("/auth/login").await;
    let callback = changed.choose(&authorization, &admin()).await;
    let value = changed.cookies["__Host-login"].replacen("..", ".other.", 1);
    changed.cookies.insert("__Host-login".to_owned(), value);
    assert_eq!(changed.get(&callback).await.event("authn_token_invalid")["claim"], "cookie");
}

/// RFC 6749 section 4.1.2: unknown parameters are ignored, and none is repeated.
#[tokio::test]
async fn authn_14_further_parameters_of_the_issuer_are_ignored() {
    let app = start().await;
    let mut browser = Browser::new(&app);
    let authorization = browser.begin("/auth/login").await;
    let callback = browser.choose(&authorization, &admin()).await;
    let code = callback.split(['?', '&']).find(|it| it.starts_with("code=")).unwrap();
    browser.clone().get(&format!("{callback}&{code}")).await.problem(400);
    let further = "session_state=x&scope=openid+email&authuser=0&hd=example.com&prompt=consent";
    let reply = browser.get(&format!("{callback}&{further}")).await;
    assert_eq!(reply.status, 303, "{reply:#?}");
    browser.get("/auth/login?prompt=none").await.problem(400);
}

#[tokio::test]
async fn authn_14_sign_in_expires_after_ten_minutes() {
    let app = start().await;
    let mut browser = Browser::new(&app);
    let authorization = browser.begin("/auth/login").await;
    app.clock.advance(Duration::from_secs(601));
    let callback = browser.choose(&authorization, &admin()).await;
    assert_eq!(browser.get(&callback).await.event("authn_token_invalid")["claim"], "cookie");
}

#[tokio::test]
async fn authn_14_return_path_and_issuer_must_be_listed() {
    let listed = ("APP_SESSIONS__RETURN_PATHS", "/app,/docs");
    let app = SERVICE.start_with(&[&SESSIONS[..], &[listed]].concat()).await;
    let mut browser = Browser::new(&app);
    for query in
        ["return_to=/other", "return_to=/app/", "return_to=//evil.example", "issuer=partner", "return_to=/app&issuer=x"]
    {
        let reply = browser.get(&format!("/auth/login?{query}")).await;
        assert_eq!(reply.problem(400), "invalid_input", "{query}");
        assert!(browser.cookies.is_empty(), "{query}");
    }
    browser.get("/auth/login?return_to=https://evil.example").await.problem(400);
    let authorization = browser.begin("/auth/login?return_to=/docs").await;
    let callback = browser.choose(&authorization, &admin()).await;
    assert_eq!(browser.get(&callback).await.header("location"), Some("/docs"));
}

#[tokio::test]
async fn authn_14_sign_in_ends_the_session_that_the_browser_had() {
    let app = start().await;
    let mut attacker = signed_in(&app).await;
    // The attacker plants the cookie of its session in the victim's browser.
    let mut victim = Browser::new(&app);
    victim.cookies.clone_from(&attacker.cookies);
    victim.sign_in(&admin()).await;
    assert_ne!(victim.session_cookie(), attacker.session_cookie());
    victim.get("/v1/me").await.ok(200);
    attacker.get("/v1/me").await.problem(401);
}

#[tokio::test]
async fn authn_14_stolen_database_has_no_usable_secret() {
    let app = start().await;
    let mut browser = signed_in(&app).await;
    let cookies: Vec<String> = browser.cookies.values().cloned().collect();
    app.clock.advance(Duration::from_secs(30));
    browser.change(Method::POST, "/auth/refresh").await.ok(200);
    let newest = browser.session_cookie().to_owned();
    let csrf = browser.csrf_token().await;
    let texts: Vec<&str> = cookies.iter().map(String::as_str).chain([&*newest, &*csrf]).collect();
    assert_not_in_database(&app, &admin().subject, &texts).await;
    // The parts of a JSON Web Token: no token, of whatever kind, is stored in plain.
    assert_not_in_database(&app, &admin().subject, &["eyJhbGciOi", "ImF0K2p3dCI"]).await;
}
