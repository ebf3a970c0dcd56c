//! The binary, started as a user starts it.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use service::{authz::policy::Role, domain::Clock};

use crate::support::{Actor, TestApp, start_issuer, test_database};

fn binary() -> Command {
    let mut command = Command::new(env!(concat!("CARGO_BIN_EXE_", env!("CARGO_PKG_NAME"))));
    command.env_clear();
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

#[test]
fn secret_03_check_config_lists_every_fault_and_fails() {
    let output = binary().arg("check-config").env("APP_HTTP__LISTEN", "nowhere").output().unwrap();
    assert!(!output.status.success());
    let shown = text(&output);
    for variable in ["APP_HTTP__LISTEN", "APP_DATABASE__WRITER_URL", "APP_OIDC__ISSUER", "APP_SECRETS__MAC_KEY"] {
        assert!(shown.contains(variable), "{shown}");
    }
}

#[test]
fn threat_02_routes_prints_the_matrix() {
    let output = binary().arg("routes").output().unwrap();
    assert!(output.status.success());
    let shown = text(&output);
    assert_eq!(shown.lines().count(), service::authz::matrix::MATRIX.len());
    assert!(shown.contains("POST   /v1/orders/{id}/cancel"), "{shown}");
}

#[tokio::test]
async fn fail_03_serve_logs_json_and_stops_in_order() {
    let database = test_database().await;
    let issuer = start_issuer(Clock::system()).await;
    let mut serve = binary();
    serve.arg("serve").envs(TestApp::variables(&database, issuer.url()));
    let mut child = serve.stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut seen: Vec<serde_json::Value> = Vec::new();
    while !seen.iter().any(|line| line["message"] == "listening")
        || !seen.iter().any(|line| line["message"] == "issuer keys loaded")
    {
        let line = tokio::time::timeout(Duration::from_secs(20), lines.recv()).await.unwrap().unwrap();
        seen.push(serde_json::from_str(&line).expect("every log line is JSON"));
    }
    let listening = seen.iter().find(|line| line["message"] == "listening").unwrap();
    let address = listening["address"].as_str().unwrap().parse().unwrap();
    let token = issuer.access_token(&crate::support::person(&crate::support::ACME, Role::Viewer), &[]);
    Actor::new(address, Some(token.clone())).get("/v1/me").await.ok(200);

    let terminate = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(terminate.success());
    let asked = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(asked.elapsed() < Duration::from_secs(20), "still running 20 s after SIGTERM");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(status.success(), "{status}");
    let mut rest = String::new();
    while let Some(line) = lines.recv().await {
        rest.push_str(&line);
    }
    assert!(rest.contains("\"stopped\""), "{rest}");
    assert!(!rest.contains(&token), "a token is in the log");
}
