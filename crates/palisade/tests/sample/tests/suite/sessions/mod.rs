//! Browser sessions (AUTHN-14, AUTHN-15, AUTHN-16): sign-in, cookie, refresh and sign-out, against the
//! development issuer, and against one whose answers the test chooses.

mod answers;
mod limits;
mod logout;
mod manage;
mod origin;
mod refresh;
mod sign_in;
mod step_up;
mod surroundings;

use palisade::dev::people::Person;
use sample::access::roles;

use crate::support::{ACME, Browser, SERVICE, TestApp, UNTHROTTLED};

/// Settings with a client at the development issuer, and without limits.
const SESSIONS: [(&str, &str); 6] = [
    UNTHROTTLED[0],
    UNTHROTTLED[1],
    UNTHROTTLED[2],
    UNTHROTTLED[3],
    ("APP_SESSIONS__CLIENT_ID", "demo-web"),
    ("APP_SESSIONS__ATTEMPTS_PER_MINUTE", "1000000"),
];

async fn start() -> TestApp {
    SERVICE.start_with(&SESSIONS).await
}

/// An administrator of Acme.
fn admin() -> Person {
    SERVICE.person(&ACME, roles::ADMIN)
}

/// A browser with the session of an administrator.
async fn signed_in(app: &TestApp) -> Browser {
    let mut browser = Browser::new(app);
    browser.sign_in(&admin()).await;
    browser
}

/// Two replicas with one database, one issuer, one public URL and one MAC key.
async fn two_replicas() -> [TestApp; 2] {
    let database = SERVICE.database().await;
    let mac_key = "APP_SECRETS__MAC_KEY";
    let key = "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=";
    let public_url = ("APP_HTTP__PUBLIC_URL", "http://localhost:9");
    let common = [&SESSIONS[..], &[(mac_key, key), public_url, ("APP_DATABASE__MAX_CONNECTIONS", "6")]].concat();
    let first = SERVICE.start_on(database.clone(), &common).await;
    let issuer = first.issuer.url().to_owned();
    let second = SERVICE.start_on(database, &[&common[..], &[("APP_OIDC__ISSUER", &issuer)]].concat()).await;
    second.wait_until_ready().await;
    [first, second]
}

/// A browser of the replicas.
fn browser_of(app: &TestApp) -> Browser {
    let mut browser = Browser::new(app);
    "http://localhost:9".clone_into(&mut browser.origin);
    browser
}
