//! Browser sessions (AUTHN-14, AUTHN-15, AUTHN-16) with an independent OpenID provider: sign-in with a
//! confidential client, refresh with rotation, sign-out at the provider, back-channel logout.

use std::time::Duration;

use http::Method;
use serde_json::json;
use url::Url;

use super::{Client, Provider, start_app};
use crate::support::{ACME, Browser, TcpSwitch, TestApp, eventually, interop_provider, note_body};

/// A service and a provider that know each other. The provider reaches the service through the switch,
/// whose address is known before both start.
struct Setup {
    app: TestApp,
    switch: TcpSwitch,
    client: Client,
    _provider: Provider,
}

impl Setup {
    /// `None` if the interop tests are skipped.
    async fn start() -> Option<Self> {
        let folder = interop_provider::folder()?;
        let mut switch = TcpSwitch::new().await;
        let provider = Provider::start_for(folder, &["ES256"], &switch.url());
        let sessions = [
            ("APP_HTTP__PUBLIC_URL", switch.url()),
            ("APP_SESSIONS__CLIENT_ID", "bff".to_owned()),
            ("APP_SESSIONS__CLIENT_SECRET", provider.secret.clone()),
        ];
        let sessions: Vec<(&str, &str)> = sessions.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let app = start_app(&provider.issuer, &sessions).await;
        switch.open_to(app.address).await;
        let client = Client::discover(&provider.issuer).await;
        Some(Self { app, switch, client, _provider: provider })
    }

    fn browser(&self) -> Browser {
        let mut browser = Browser::new(&self.app);
        browser.origin = self.switch.url();
        browser
    }

    /// Signs a writer in, through these pages of the provider.
    async fn sign_in(&self, pages: &mut super::client::ProviderPages) -> Browser {
        let mut browser = self.browser();
        let authorization = browser.begin("/auth/login").await;
        let callback = pages.sign_in(authorization, "writer@acme.example", &self.switch.url()).await;
        let reply = browser.get(&format!("{}?{}", callback.path(), callback.query().unwrap())).await;
        assert_eq!((reply.status.as_u16(), reply.header("location")), (303, Some("/")), "{reply:#?}");
        browser
    }
}

#[tokio::test]
async fn authn_14_interop_session_acts_for_its_person() {
    let Some(setup) = Setup::start().await else { return };
    let mut browser = setup.sign_in(&mut setup.client.pages()).await;
    let session = browser.session().await;
    assert_eq!(
        (&session["user"], &session["tenantId"], &session["roles"]),
        (&json!("writer@acme.example"), &json!(ACME.id.to_string()), &json!(["writer"]))
    );
    browser.get("/v1/notes").await.ok(200);
    let token = browser.csrf_token().await;
    let create = browser.request(Method::POST, "/v1/notes").json(&note_body("PAPER-A4", 1));
    browser.send(create.try_clone().unwrap()).await.problem(403);
    browser.send(create.header("x-csrf-token", token)).await.ok(201);
    // The provider accepts a code once, and so does the service.
    let mut other = setup.browser();
    let authorization = other.begin("/auth/login").await;
    let callback = setup.client.pages().sign_in(authorization, "viewer@acme.example", &setup.switch.url()).await;
    let path = format!("{}?{}", callback.path(), callback.query().unwrap());
    setup.browser().get(&path).await.problem(401);
    let mut replay = other.clone();
    assert_eq!(other.get(&path).await.status, 303);
    replay.get(&path).await.problem(401);
}

#[tokio::test]
async fn authn_15_interop_refresh_rotates_at_the_provider() {
    let Some(setup) = Setup::start().await else { return };
    let mut browser = setup.sign_in(&mut setup.client.pages()).await;
    for _ in 0..3 {
        setup.app.clock.advance(Duration::from_secs(11));
        let before = browser.session_cookie().to_owned();
        let reply = browser.change(Method::POST, "/auth/refresh").await;
        assert_eq!(reply.status, 200, "{reply:#?}");
        assert_ne!(browser.session_cookie(), before);
        browser.get("/v1/notes").await.ok(200);
    }
}

#[tokio::test]
async fn authn_16_interop_sign_out_at_the_provider_ends_every_session_of_the_sign_in() {
    let Some(setup) = Setup::start().await else { return };
    let mut pages = setup.client.pages();
    let mut first = setup.sign_in(&mut pages).await;
    let mut second = setup.sign_in(&mut pages).await;
    let mut other = setup.sign_in(&mut setup.client.pages()).await;
    let signed_out = first.change(Method::POST, "/auth/logout").await.ok(200);
    first.get("/auth/session").await.problem(401);
    second.get("/v1/notes").await.ok(200);
    let end_session = Url::parse(signed_out["endSessionUrl"].as_str().unwrap()).unwrap();
    assert_eq!(pages.sign_out(end_session).await, format!("{}/", setup.switch.url()));
    eventually("the logout token has arrived", async || second.get("/v1/notes").await.status == 401).await;
    other.get("/v1/notes").await.ok(200);
}
