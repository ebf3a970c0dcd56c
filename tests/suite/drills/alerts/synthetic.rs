//! Alert rules on generated metrics pages (LOG-07): gaps and restarts, baselines of a day, and
//! alerts that no attack over the network can fire.

use crate::support::promtool::Scrapes;

#[test]
fn log_07_gaps_fire_no_attack_alert_and_counts_after_restarts_are_new() {
    let mut scrapes = Scrapes::default();
    let mut minutes = |pages: u32, rejected: &str, alerts: &[&str]| {
        for _ in 0..pages {
            let page = format!(
                "security_events_total{{event=\"secret_read\"}} 9\n\
                 authentications_total{{credential=\"token\",result=\"rejected\"}} {rejected}\n"
            );
            scrapes.add(if rejected.is_empty() { "" } else { &page });
        }
        scrapes.expect(alerts);
    };
    // Counts of before the first scrape have no known age, so they count as new.
    minutes(1, "5000", &["TokenForgery"]);
    minutes(20, "5000", &[]);
    minutes(1, "", &[]);
    for _ in 0..30 {
        minutes(1, "5000", &[]);
    }
    // Counts of before a long gap are not new after it.
    minutes(20, "", &["NothingMeasured"]);
    minutes(11, "5000", &[]);
    minutes(15, "", &["NothingMeasured"]);
    minutes(1, "200", &["TokenForgery"]);
    minutes(12, "200", &[]);
    // A restart with few failures since, and one with less than half the threshold, which counts
    // once.
    minutes(2, "3", &[]);
    minutes(3, "100", &["TokenForgery"]);
    minutes(20, "100", &[]);
    minutes(2, "30", &[]);
    scrapes.check();
}

/// An hour of normal pages, then the event of the alert.
#[test]
fn log_07_remaining_alerts_fire_on_synthetic_series() {
    let event = |name: &str, count: u32| format!("security_events_total{{event=\"{name}\"}} {count}\n");
    let connections = |used: u32| {
        ["used", "max"].map(|state| {
            let value = if state == "used" { used } else { 10 };
            format!("db_client_connection_count{{login=\"app_writer\",state=\"{state}\"}} {value}\n")
        })
    };
    let normal = format!("{}{}", event("secret_read", 9), connections(9).concat());
    let refused_certificates = "authentications_total{credential=\"certificate\",result=\"missing\"} 11\n".to_owned();
    let refusals = "http_server_refusals_total{budget=\"unread_bytes\"} 101\n".to_owned();
    let lost = "telemetry_items_total{outcome=\"lost\",signal=\"spans\"} 5\n".to_owned();
    for (alert, minutes, then) in [
        ("RevokedCredentialUsed", 1, event("authn_token_reuse", 1)),
        ("StoredDataChanged", 1, event("sealed_data_invalid", 1)),
        ("StoredDataChanged", 1, event("audit_trail_invalid", 1)),
        ("RowsChangedPastService", 1, event("audit_row_changed", 1)),
        ("AuditTrailNotSealed", 1, event("audit_not_sealed", 1)),
        ("InputRefused", 1, event("input_validation_fail", 301)),
        ("IncidentHandled", 1, event("incident_handled", 1)),
        ("OverrideUnreadable", 1, event("override_unreadable", 1)),
        ("SecretNotRenewed", 1, event("secret_not_renewed", 1)),
        ("Panic", 1, event("sys_crash", 1)),
        ("TelemetryLost", 1, lost),
        ("CertificatesRefused", 1, refused_certificates),
        ("ClientsRefused", 1, refusals),
    ] {
        let mut scrapes = Scrapes::default();
        (0..60).for_each(|_| scrapes.add(&normal));
        scrapes.expect(&[]);
        (0..minutes).for_each(|_| scrapes.add(&format!("{normal}{then}")));
        scrapes.expect(&[alert]);
        // The alert ends by itself.
        (0..15).for_each(|_| scrapes.add(&format!("{normal}{then}")));
        scrapes.expect(&[]);
        scrapes.check();
    }
    let mut scrapes = Scrapes::default();
    (0..60).for_each(|_| scrapes.add(&normal));
    (0..4).for_each(|_| scrapes.add(&format!("{}{}", event("secret_read", 9), connections(10).concat())));
    scrapes.expect(&["ConnectionsUsedUp"]);
    (0..5).for_each(|_| scrapes.add(&normal));
    scrapes.expect(&[]);
    (0..4).for_each(|_| scrapes.add(&format!("{}{}", event("secret_read", 11), connections(9).concat())));
    scrapes.expect(&["SecretRead"]);
    scrapes.check();

    let certificate =
        |seconds: u32| format!("{normal}tls_certificate_remaining_seconds{{listener=\"public\"}} {seconds}\n");
    let mut scrapes = Scrapes::default();
    (0..60).for_each(|_| scrapes.add(&certificate(604_800)));
    scrapes.expect(&[]);
    scrapes.add(&certificate(604_799));
    scrapes.expect(&["CertificateExpires"]);
    scrapes.add(&certificate(7_776_000));
    scrapes.expect(&[]);
    scrapes.check();
}

/// Unusual means compared with the service's own average, since services differ in load.
#[test]
fn log_07_unusual_volume_is_measured_against_the_day_before() {
    let mut scrapes = Scrapes::default();
    let mut total = [0; 4];
    let mut minutes = |count: u32, each: [u32; 4], alerts: &[&str]| {
        for _ in 0..count {
            total.iter_mut().zip(each).for_each(|(total, each)| *total += each);
            let [frequent, rare, changes, rejected] = total;
            let calls = [("listOrders", "GET", frequent), ("getOrder", "GET", rare), ("putProduct", "PUT", changes)];
            let calls = calls.map(|(operation, method, total)| {
                format!(
                    "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",\
                     http_response_status_code=\"200\",operation=\"{operation}\"}} {total}\n"
                )
            });
            scrapes.add(&format!(
                "security_events_total{{event=\"secret_read\"}} 9\n\
                 security_events_total{{event=\"input_validation_fail\"}} {rejected}\n{}",
                calls.concat()
            ));
        }
        scrapes.expect(alerts);
    };
    let normal = [200, 10, 100, 20];
    minutes(1_560, normal, &[]);
    // One operation is above the minimum count but within its usual ratio; another exceeds its
    // ratio but stays below the minimum.
    minutes(20, [600, 400, 2_000, 45], &[]);
    minutes(20, [1_100, 400, 2_000, 80], &["InputRefused", "ReadsUnusual"]);
    minutes(30, normal, &[]);
    scrapes.check();
}
