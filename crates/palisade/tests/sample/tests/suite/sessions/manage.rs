//! Lists of sessions, and their end by people and administrators (AUTHN-16).

use http::Method;
use sample::access::roles;

use super::{admin, browser_of, signed_in, start, two_replicas};
use crate::support::{ACME, Browser, GLOBEX, SERVICE};

#[tokio::test]
async fn authn_16_people_list_and_end_their_sessions() {
    let [app, second] = two_replicas().await;
    let mut browser = browser_of(&app);
    browser.sign_in(&admin()).await;
    let mut other = browser_of(&app);
    other.sign_in(&admin()).await;
    let mut viewer = browser_of(&app);
    viewer.sign_in(&SERVICE.person(&ACME, roles::VIEWER)).await;
    let list = browser.get("/v1/me/sessions").await.ok(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{list:#}");
    assert_eq!((&items[0]["current"], &items[1]["current"]), (&false.into(), &true.into()));
    assert_eq!(items[0]["network"], "127.0.0.1");
    let path = format!("/v1/me/sessions/{}", items[0]["id"].as_str().unwrap());
    // Another person's session looks like a missing one.
    viewer.change(Method::DELETE, &path).await.problem(404);
    other.at(&second).get("/v1/me").await.ok(200);
    let reply = browser.change(Method::DELETE, &path).await;
    assert_eq!(reply.status, 204, "{reply:#?}");
    for replica in [&app, &second] {
        other.at(replica).get("/v1/me").await.problem(401);
    }
    assert_eq!(browser.change(Method::DELETE, &path).await.status, 204, "ending it again changes nothing");
    let list = browser.get("/v1/me/sessions").await.ok(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    // A bearer token of the same person shows them too, and none is current.
    let list = app.bearer(app.issuer.access_token(&admin(), app.rights.scopes)).get("/v1/me/sessions").await.ok(200);
    assert_eq!(list["items"][0]["current"], false);
}

#[tokio::test]
async fn authn_16_administrators_list_and_end_sessions_of_their_tenant() {
    let app = start().await;
    let mut browser = signed_in(&app).await;
    let viewer = SERVICE.person(&ACME, roles::VIEWER);
    let mut of_viewer = Browser::new(&app);
    of_viewer.sign_in(&viewer).await;
    of_viewer.get("/v1/sessions").await.problem(403);
    assert_eq!(browser.get("/v1/sessions").await.ok(200)["items"].as_array().unwrap().len(), 2);
    let list = browser.get(&format!("/v1/sessions?user={}", viewer.subject)).await.ok(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["user"]), (1, &(*viewer.subject).into()));
    let path = format!("/v1/sessions/{}", items[0]["id"].as_str().unwrap());
    let mut of_globex = Browser::new(&app);
    of_globex.sign_in(&SERVICE.person(&GLOBEX, roles::ADMIN)).await;
    of_globex.change(Method::DELETE, &path).await.problem(404);
    assert_eq!(of_globex.get("/v1/sessions").await.ok(200)["items"].as_array().unwrap().len(), 1);
    of_viewer.change(Method::DELETE, &path).await.problem(403);
    assert_eq!(browser.change(Method::DELETE, &path).await.status, 204);
    of_viewer.get("/v1/me").await.problem(401);
}

#[tokio::test]
async fn authn_16_sessions_without_a_client_are_switched_off() {
    let app = SERVICE.shared();
    let mut browser = Browser::new(app);
    for path in ["/auth/login", "/auth/callback?code=x&state=y", "/auth/session"] {
        assert_eq!(browser.get(path).await.problem(404), "not_found", "{path}");
    }
    browser.cookies.insert("__Host-session".to_owned(), "A".repeat(112));
    browser.get("/v1/me").await.problem(401);
}
