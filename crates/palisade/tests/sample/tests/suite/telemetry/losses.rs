//! A collector that does not accept data, and the end of the process (LOG-03): requests go on, and
//! losses are counted.

use std::time::{Duration, Instant};

use sample::demo;

use super::Observed;
use crate::support::{eventually, note_body};

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
