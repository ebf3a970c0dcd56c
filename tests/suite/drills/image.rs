//! Smoke test of the container image (SUPPLY-03): what is in it, the rights of its process, an order
//! that it accepts, the probe `health`, and its end.

use std::process::{Command, Output};

use palisade::model::Clock;
use service::access::{roles, scopes};
use uuid::Uuid;

use crate::support::{ACME, Actor, SERVICE, ServiceProcess, TestApp, order_body, person, start_issuer};

/// A container, removed on drop: the end of Docker's client does not end it.
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.0]);
    }
}

fn docker(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

/// The files of the image, as `tar` lists them.
fn files(image: &str) -> String {
    let container = Container(text(&docker(&["create", image])));
    let listing = format!("docker export {} | tar --list --verbose --numeric-owner", container.0);
    text(&Command::new("sh").args(["-c", &listing]).output().unwrap())
}

/// `TEST_IMAGE` names a built image (`.ci/check-image`). Without it, the test does nothing.
#[tokio::test]
async fn supply_03_image_serves_read_only_without_rights_and_without_a_shell() {
    let Ok(image) = std::env::var("TEST_IMAGE") else { return };
    assert_eq!(text(&docker(&["image", "inspect", "--format={{.Config.User}}", &image])), "65532:65532");
    let listing = files(&image);
    assert!(listing.lines().any(|line| line.ends_with(" service")), "{listing}");
    for line in listing.lines() {
        let name = line.rsplit(['/', ' ']).next().unwrap_or_default();
        for program in ["sh", "bash", "dash", "busybox", "apt", "dpkg", "apk", "curl", "wget", "perl", "su", "sudo"] {
            assert_ne!(name, program, "{line}");
        }
        assert!(!line.get(..10).unwrap_or_default().contains(['s', 'S']), "set user id: {line}");
    }

    let database = SERVICE.database().await;
    let issuer = start_issuer(Clock::system()).await;
    let variables = TestApp::variables(&database, issuer.url());
    let name = format!("image-{}", Uuid::now_v7());
    let mut run = Command::new("docker");
    run.args(["run", "--rm", "--name", &name, "--network=host", "--read-only", "--cap-drop=ALL"]);
    run.args(["--security-opt=no-new-privileges", "--ulimit=nofile=16384"]);
    for variable in variables.keys() {
        run.args(["--env", variable]);
    }
    run.arg(&image);
    let container = Container(name);
    let process = ServiceProcess::start_command(run, &variables).await;

    let pid = text(&docker(&["inspect", "--format={{.State.Pid}}", &container.0]));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for expected in ["Uid:\t65532\t65532", "Gid:\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(expected), "{expected} is not in {status}");
    }

    let sales = Actor::new(process.address, Some(issuer.access_token(&person(&ACME, roles::SALES), &scopes::ALL)));
    let order = sales.post("/v1/orders", &order_body("PAPER-A4", 2)).await.ok(201);
    let path = format!("/v1/orders/{}", order["id"].as_str().unwrap());
    assert_eq!(sales.get(&path).await.ok(200), order);

    let listen = format!("APP_HTTP__LISTEN={}", process.address);
    let health = ["exec", "--env", &listen, &container.0, "/service", "health"];
    assert_eq!(text(&docker(&health)), "ready");
    let elsewhere = ["exec", "--env", "APP_HTTP__LISTEN=127.0.0.1:9", &container.0, "/service", "health"];
    assert_eq!(docker(&elsewhere).status.code(), Some(1));
    let (status, log) = process.terminate().await;
    assert!(status.success() && log.contains("\"stopped\""), "{status} {log}");
}
