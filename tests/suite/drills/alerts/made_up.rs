//! What takes hours, or cannot be had of a service that is well: on pages that are made up.

use crate::support::promtool::Scrapes;

#[test]
fn log_07_a_scrape_that_fails_is_no_attack_and_what_was_counted_since_a_restart_is_new() {
    let mut scrapes = Scrapes::default();
    let mut minutes = |pages: u32, refused: &str, alerts: &[&str]| {
        for _ in 0..pages {
            let page = format!(
                "security_events_total{{event=\"secret_read\"}} 9\n\
                 authentications_total{{credential=\"token\",result=\"refused\"}} {refused}\n"
            );
            scrapes.add(if refused.is_empty() { "" } else { &page });
        }
        scrapes.expect(alerts);
    };
    // Since when it was counted before it was first read, nobody knows.
    minutes(1, "5000", &["TokenForgery"]);
    minutes(20, "5000", &[]);
    minutes(1, "", &[]);
    for _ in 0..30 {
        minutes(1, "5000", &[]);
    }
    // What was counted before a long gap is nothing new after it either.
    minutes(20, "", &["NothingMeasured"]);
    minutes(11, "5000", &[]);
    minutes(15, "", &["NothingMeasured"]);
    minutes(1, "200", &["TokenForgery"]);
    minutes(12, "200", &[]);
    // Another restart, and next to nothing since; and one with less than half of what would be too much, which counts once.
    minutes(2, "3", &[]);
    minutes(3, "100", &["TokenForgery"]);
    minutes(20, "100", &[]);
    minutes(2, "30", &[]);
    scrapes.check();
}

/// An hour in which all is well, and then what an alert is for.
#[test]
fn log_07_what_no_simulated_attack_does_fires_its_alert() {
    let event = |name: &str, count: u32| format!("security_events_total{{event=\"{name}\"}} {count}\n");
    let connections = |used: u32| {
        ["used", "max"].map(|state| {
            let value = if state == "used" { used } else { 10 };
            format!("db_client_connection_count{{login=\"app_writer\",state=\"{state}\"}} {value}\n")
        })
    };
    let well = format!("{}{}", event("secret_read", 9), connections(9).concat());
    let lost = "telemetry_items_total{outcome=\"lost\",signal=\"spans\"} 5\n".to_owned();
    for (alert, minutes, then) in [
        ("RevokedCredentialUsed", 1, event("authn_token_reuse", 1)),
        ("StoredDataChanged", 1, event("sealed_data_invalid", 1)),
        ("StoredDataChanged", 1, event("audit_trail_invalid", 1)),
        ("AuditTrailNotSealed", 1, event("audit_not_sealed", 1)),
        ("InputRefused", 1, event("input_validation_fail", 301)),
        ("IncidentHandled", 1, event("incident_handled", 1)),
        ("MeasureUnreadable", 1, event("measure_unreadable", 1)),
        ("SecretNotRenewed", 1, event("secret_not_renewed", 1)),
        ("Panic", 1, event("sys_crash", 1)),
        ("TelemetryLost", 1, lost),
    ] {
        let mut scrapes = Scrapes::default();
        (0..60).for_each(|_| scrapes.add(&well));
        scrapes.expect(&[]);
        (0..minutes).for_each(|_| scrapes.add(&format!("{well}{then}")));
        scrapes.expect(&[alert]);
        // It ends by itself.
        (0..15).for_each(|_| scrapes.add(&format!("{well}{then}")));
        scrapes.expect(&[]);
        scrapes.check();
    }
    let mut scrapes = Scrapes::default();
    (0..60).for_each(|_| scrapes.add(&well));
    (0..4).for_each(|_| scrapes.add(&format!("{}{}", event("secret_read", 9), connections(10).concat())));
    scrapes.expect(&["ConnectionsUsedUp"]);
    (0..5).for_each(|_| scrapes.add(&well));
    scrapes.expect(&[]);
    (0..4).for_each(|_| scrapes.add(&format!("{}{}", event("secret_read", 11), connections(9).concat())));
    scrapes.expect(&["SecretRead"]);
    scrapes.check();
}

/// Each by its own average, so that what is much for one service is nothing for another.
#[test]
fn log_07_what_is_unusual_is_so_by_the_day_before() {
    let mut scrapes = Scrapes::default();
    let mut total = [0; 4];
    let mut minutes = |count: u32, each: [u32; 4], alerts: &[&str]| {
        for _ in 0..count {
            total.iter_mut().zip(each).for_each(|(total, each)| *total += each);
            let [often, seldom, changes, refused] = total;
            let calls = [("listOrders", "GET", often), ("getOrder", "GET", seldom), ("putProduct", "PUT", changes)];
            let calls = calls.map(|(operation, method, total)| {
                format!(
                    "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",\
                     http_response_status_code=\"200\",operation=\"{operation}\"}} {total}\n"
                )
            });
            scrapes.add(&format!(
                "security_events_total{{event=\"secret_read\"}} 9\n\
                 security_events_total{{event=\"input_validation_fail\"}} {refused}\n{}",
                calls.concat()
            ));
        }
        scrapes.expect(alerts);
    };
    let usual = [200, 10, 100, 20];
    minutes(1_560, usual, &[]);
    // More than the least number, but not often enough for this service; and often enough, but less than that number.
    minutes(20, [600, 400, 2_000, 45], &[]);
    minutes(20, [1_100, 400, 2_000, 80], &["InputRefused", "ReadsUnusual"]);
    minutes(30, usual, &[]);
    scrapes.check();
}
