//! A collector that does not accept data, and the end of the process (LOG-03): requests go on, losses
//! are counted, and lines that fill their queue cost no security event.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use sample::demo;

use super::Observed;
use crate::support::{
    Actor, eventually,
    h2::{self, H2},
    note_body,
};

#[tokio::test]
async fn log_03_unresponsive_collector_delays_no_request_and_losses_are_counted() {
    let observed = Observed::start(&[]).await;
    let admin = observed.admin();
    let path = format!("/v1/notes/{}", demo::FIRST_NOTE);
    admin.get(&path).await.ok(200);
    observed.collector.set_silent(true);
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    // Longer than the exporter's timeout.
    while started.elapsed() < Duration::from_secs(3) {
        let sent = Instant::now();
        admin.get(&path).await.ok(200);
        slowest = slowest.max(sent.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    observed.collector.set_silent(false);
    eventually("the losses are reported", async || {
        let lost = |signal| observed.collector.latest("telemetry.items", &[("signal", signal), ("outcome", "lost")]);
        lost("spans") > 0 && lost("logs") > 0
    })
    .await;
    // The export goes on.
    let reply = admin.get(&path).await;
    let trace_id = reply.header("x-request-id").unwrap().to_owned();
    assert!(!observed.trace(&trace_id).await.is_empty());
}

#[tokio::test]
async fn log_03_buffered_telemetry_is_exported_before_the_service_stops() {
    let observed = Observed::start(&[("APP_OTLP__METRICS_INTERVAL_MS", "3600000")]).await;
    let reply = observed.admin().post("/v1/notes", &note_body("PAPER-A4", 2)).await;
    let trace_id = reply.header("x-request-id").unwrap().to_owned();
    reply.ok(201);
    let Observed { process, collector, .. } = observed;
    let (status, _) = process.terminate().await;
    assert!(status.success());
    assert!(collector.spans().iter().any(|span| span.trace_id == trace_id && span.kind == 2));
    assert!(
        collector.records().iter().any(|record| record.attributes.get("event").is_some_and(|e| e == "data_changed"))
    );
    assert_eq!(collector.latest("http.server.request.duration", &[("operation", "createNote")]), 1);
}

/// An attacker must not hide an event behind a flood of other lines.
#[tokio::test]
async fn log_03_flood_of_lines_loses_no_security_event() {
    const REQUESTS: usize = 12_000;
    // Exports do not end while the collector is silent. At level trace a request has some lines.
    let observed = Observed::start(&[("APP_LOG__FILTER", "trace"), ("APP_OTLP__TIMEOUT_MS", "60000")]).await;
    let collector = &observed.collector;
    collector.set_silent(true);
    let mut flood = H2::connect(observed.process.address, Ipv4Addr::LOCALHOST.into(), true).await.unwrap();
    for n in 1..=REQUESTS {
        flood.send(&h2::get("/health/live", None)).await.unwrap();
        // Waits, to stay within the limit of concurrent streams.
        if n % 50 == 0 {
            flood.wait_for_stream_ends(n).await;
        }
    }
    let trace_of = async |token: Option<&str>| {
        let actor = Actor::new(observed.process.address, token.map(str::to_owned));
        actor.get("/v1/me").await.header("x-request-id").unwrap().to_owned()
    };
    let forged = trace_of(Some("no.to.ken")).await;
    collector.set_silent(false);
    let arrived = |id: &str, has: &str| {
        collector.records().iter().any(|record| record.trace_id == id && record.attributes.contains_key(has))
    };
    eventually("the event arrives", async || arrived(&forged, "event")).await;
    // Lines leave their queue in order, so those that have not arrived with this one are lost.
    let last = trace_of(None).await;
    eventually("a later line arrives", async || arrived(&last, "micros")).await;
    let made = || collector.latest("telemetry.items", &[("signal", "logs"), ("outcome", "made")]);
    let received = collector.records().len() as u64;
    println!("made {} received {received}", made());
    eventually("the queue of other lines was full", async || made() > received + 1_000).await;
}
