//! The demo page and the docs page in Chromium (AUTHN-14, AUTHN-15, AUTHN-16), driven by
//! `tests/browser/browser.mjs`, which holds the assertions.
//!
//! `TEST_BROWSER` names the program of Chromium. Without it, or without Node.js, the tests are
//! skipped, as with `TEST_BROWSER=off`; `TEST_BROWSER=required` or a set `CI` makes that a failure.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use http::Method;
use palisade::dev::issuer::WEB_CLIENT;
use serde_json::json;

use crate::support::{NpmPackages, OptionalTool, SERVICE, TestApp, UNTHROTTLED, eventually, superuser};

const BROWSER: OptionalTool = OptionalTool { topic: "browser", variable: "TEST_BROWSER", tests: "the browser tests" };

const PACKAGES: NpmPackages = NpmPackages {
    tool: BROWSER,
    name: "browser",
    manifest: include_str!("../browser/package.json"),
    lock: include_str!("../browser/package-lock.json"),
};

/// The programs of a browser test.
struct Programs {
    chromium: String,
    /// The folder with playwright-core.
    packages: PathBuf,
}

static PROGRAMS: OnceLock<Result<Programs, String>> = OnceLock::new();

fn find() -> Result<(String, Programs), String> {
    let setting = BROWSER.setting().filter(|name| !["", "required"].contains(&name.as_str()));
    let names = setting.as_deref().map_or(vec!["chromium", "chromium-browser", "google-chrome"], |name| vec![name]);
    let runs = |name: &&&str| {
        let mut version = Command::new(name);
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    };
    let name = names.iter().find(runs).ok_or_else(|| format!("none of {}", names.join(", ")))?;
    let path = Command::new("which").arg(name).output().map_err(|error| error.to_string())?;
    let chromium = String::from_utf8_lossy(&path.stdout).trim().to_owned();
    let (version, packages) = PACKAGES.fetch()?;
    Ok((format!("{chromium}, driven from Node.js {version}"), Programs { chromium, packages }))
}

/// Runs a scenario of `browser.mjs` against a service of its own.
async fn run(scenario: &str) {
    run_beside(scenario, async |_| ()).await;
}

/// The same, and what the test does meanwhile.
async fn run_beside(scenario: &str, test: impl AsyncFnOnce(&TestApp)) {
    let Some(Programs { chromium, packages }) = BROWSER.get(PROGRAMS.get_or_init(|| BROWSER.find(find))) else {
        return;
    };
    let sessions = [
        ("APP_SESSIONS__CLIENT_ID", WEB_CLIENT),
        ("APP_SESSIONS__RETURN_PATHS", "/,/demo,/docs"),
        ("APP_SESSIONS__ATTEMPTS_PER_MINUTE", "1000"),
    ];
    let app = SERVICE.start_with(&[&UNTHROTTLED[..], &sessions].concat()).await;
    let screenshots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    fs::create_dir_all(&screenshots).unwrap();
    let configuration = json!({
        "scenario": scenario,
        "app": format!("http://{}", app.address),
        "issuer": app.issuer.url(),
        "chromium": chromium,
        "screenshots": screenshots,
    });
    // Passed as text, the module finds its packages in the working directory.
    let mut node = Command::new("node");
    node.args(["--input-type=module", "--eval", include_str!("../browser/browser.mjs"), "--"]);
    node.arg(configuration.to_string()).current_dir(packages).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || node.output().unwrap());
    test(&app).await;
    let output = output.await.unwrap();
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{scenario}: {}; pictures are in {}", printed.join("\n"), screenshots.display());
}

#[tokio::test]
async fn authn_14_browser_gets_a_session_cookie_and_no_token() {
    run("session").await;
}

#[tokio::test]
async fn authn_14_browser_refuses_other_sites_a_session() {
    run("cross-site").await;
}

#[tokio::test]
async fn authn_14_browser_signs_in_on_the_docs_page() {
    run("docs").await;
}

#[tokio::test]
async fn authn_15_browser_refreshes_in_parallel() {
    run("refresh").await;
}

#[tokio::test]
async fn authn_16_browser_ends_sessions_at_once() {
    run("sign-out").await;
}

#[tokio::test]
async fn authn_16_browser_loses_its_session_when_the_issuer_ends_it() {
    run_beside("back-channel", async |app| {
        let subjects = "select count(distinct subject) = 2 from palisade.sessions";
        eventually("both people are signed in", async || {
            sqlx::query_scalar(subjects).fetch_one(&mut superuser(&app.database).await).await.unwrap()
        })
        .await;
        let hint = "select logout_hint from palisade.sessions where subject = 'sales@acme.example'";
        let hint: String = sqlx::query_scalar(hint).fetch_one(&mut superuser(&app.database).await).await.unwrap();
        let url = format!("{}/end-session?client_id={WEB_CLIENT}&logout_hint={hint}", app.issuer.url());
        reqwest::Client::builder().tls_certs_only([]).build().unwrap().get(url).send().await.unwrap();
    })
    .await;
}

/// Files of the demo are for the command `dev`: its profile is `development`.
#[tokio::test]
async fn authn_14_demo_page_has_no_code_inside_and_is_for_development() {
    let anonymous = SERVICE.shared().anonymous();
    for (path, media_type) in [
        ("/demo", "text/html; charset=utf-8"),
        ("/demo/demo.css", "text/css; charset=utf-8"),
        ("/demo/demo.js", "text/javascript; charset=utf-8"),
    ] {
        let reply = anonymous.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, Some(media_type)), "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        anonymous.send(anonymous.request(Method::POST, path)).await.problem(404);
    }
    let html = anonymous.get("/demo").await.text;
    for forbidden in ["<style", "style=", "<script>", "onclick", "javascript:"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
}
