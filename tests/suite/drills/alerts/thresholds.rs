//! The thresholds of the alert rules (LOG-07): an alert is silent at its threshold, fires above it,
//! and has ended ten minutes later.

use std::collections::BTreeSet;

use regex::Regex;

use crate::support::promtool::{Scrapes, expressions};

/// An alert and the counts that together are at its threshold. One more of the first exceeds it.
type Threshold = (&'static str, &'static [(&'static str, u32)]);

/// Every alert on counts of ten minutes, except `ReadsUnusual`, which
/// [`synthetic`](super::synthetic) tests.
const THRESHOLDS: [Threshold; 19] = [
    (
        "TokenForgery",
        &[
            ("authentications_total{credential=\"token\",result=\"rejected\"}", 31),
            ("authentications_total{credential=\"token\",result=\"locked_out\"}", 19),
        ],
    ),
    (
        "CredentialStuffing",
        &[
            ("authentications_total{credential=\"api_key\",result=\"rejected\"}", 18),
            ("authentications_total{credential=\"api_key\",result=\"locked_out\"}", 12),
        ],
    ),
    (
        "CertificatesRefused",
        &[
            ("authentications_total{credential=\"certificate\",result=\"missing\"}", 6),
            ("authentications_total{credential=\"certificate\",result=\"rejected\"}", 4),
        ],
    ),
    (
        "ClientsRefused",
        &[
            ("http_server_refusals_total{budget=\"connections\"}", 61),
            ("http_server_refusals_total{budget=\"requests\"}", 39),
        ],
    ),
    ("ObjectsTriedOut", &[("security_events_total{event=\"authz_fail\"}", 100)]),
    // 31 of them are rejections of the failure limiter.
    ("Scraping", &[("security_events_total{event=\"excess_rate_limit_exceeded\"}", 131)]),
    (
        "ServerErrors",
        &[
            (
                "http_server_request_duration_seconds_count{operation=\"getOrder\",http_request_method=\"GET\",\
                 http_response_status_code=\"500\"}",
                12,
            ),
            (
                "http_server_request_duration_seconds_count{operation=\"putProduct\",http_request_method=\"PUT\",\
                 http_response_status_code=\"503\"}",
                8,
            ),
        ],
    ),
    ("DecryptSpike", &[("security_events_total{event=\"sensitive_read_excess\"}", 5)]),
    (
        "DecryptSpikeOfTenant",
        &[("records_unmasked_total{tenant=\"a\"}", 1_000), ("records_unmasked_total{tenant=\"b\"}", 999)],
    ),
    ("InputRefused", &[("security_events_total{event=\"input_validation_fail\"}", 300)]),
    ("RevokedCredentialUsed", &[("security_events_total{event=\"authn_token_reuse\"}", 0)]),
    ("StoredDataChanged", &[("security_events_total{event=\"sealed_data_invalid\"}", 0)]),
    ("RowsChangedPastService", &[("security_events_total{event=\"audit_row_changed\"}", 0)]),
    ("AuditTrailNotSealed", &[("security_events_total{event=\"audit_not_sealed\"}", 0)]),
    ("IncidentHandled", &[("security_events_total{event=\"incident_handled\"}", 0)]),
    ("OverrideUnreadable", &[("security_events_total{event=\"override_unreadable\"}", 0)]),
    ("SecretNotRenewed", &[("security_events_total{event=\"secret_not_renewed\"}", 0)]),
    ("Panic", &[("security_events_total{event=\"sys_crash\"}", 0)]),
    ("TelemetryLost", &[("telemetry_items_total{outcome=\"lost\",signal=\"spans\"}", 0)]),
];

/// Counts that no alert uses, in large numbers. The last are calls: so few that the 21 errors of
/// `ServerErrors` are more than 2 % of all.
const UNRELATED: [(&str, u32); 6] = [
    ("authentications_total{credential=\"token\",result=\"accepted\"}", 9_000),
    ("authentications_total{credential=\"none\",result=\"missing\"}", 9_000),
    ("security_events_total{event=\"authn_login_success\"}", 9_000),
    ("telemetry_items_total{outcome=\"sent\",signal=\"spans\"}", 9_000),
    (
        "http_server_request_duration_seconds_count{operation=\"getReadiness\",http_request_method=\"GET\",\
         http_response_status_code=\"503\"}",
        9_000,
    ),
    (
        "http_server_request_duration_seconds_count{operation=\"none\",http_request_method=\"GET\",\
         http_response_status_code=\"404\"}",
        500,
    ),
];

/// A page with every counter. `count` maps the number above, and whether the counter is the first
/// of its alert, to the value.
fn page(count: impl Fn(u32, bool) -> u32) -> String {
    let counted = THRESHOLDS.iter().flat_map(|(_, series)| {
        series.iter().enumerate().map(|(at, (series, number))| (*series, count(*number, at == 0)))
    });
    let unrelated = UNRELATED.iter().map(|(series, number)| (*series, count(*number, false)));
    counted.chain(unrelated).map(|(series, count)| format!("{series} {count}\n")).collect::<Vec<_>>().concat()
}

fn all_alerts() -> Vec<&'static str> {
    let mut alerts: Vec<_> = THRESHOLDS.iter().map(|(alert, _)| *alert).collect();
    alerts.sort_unstable();
    alerts
}

/// An hour of pages without any of the counters.
fn quiet_hour() -> Scrapes {
    let mut scrapes = Scrapes::default();
    (0..60).for_each(|_| scrapes.add("security_events_total{event=\"secret_read\"} 9\n"));
    scrapes
}

/// The increase from nothing to the first value of a series is exact.
#[test]
fn log_07_alerts_are_silent_at_their_threshold_and_fire_above_it() {
    let mut at = quiet_hour();
    at.add(&page(|number, _| number));
    at.expect(&[]);
    at.check();
    let mut above = quiet_hour();
    for (minutes, alerts) in [(1, all_alerts()), (8, all_alerts()), (3, Vec::new())] {
        (0..minutes).for_each(|_| above.add(&page(|number, first| number + u32::from(first))));
        above.expect(&alerts);
    }
    above.check();
}

/// Prometheus extrapolates the increase of ten minutes from the samples, exact to some tenths.
#[test]
fn log_07_existing_counters_count_by_their_increase() {
    let mut scrapes = Scrapes::default();
    let mut minutes = |minutes: u32, count: &dyn Fn(u32, bool) -> u32, alerts: &[&str]| {
        (0..minutes).for_each(|_| scrapes.add(&page(count)));
        scrapes.expect(alerts);
    };
    // Long enough that these counts are far from the average.
    minutes(150, &|number, _| number, &[]);
    minutes(1, &|number, _| number + number / 2, &[]);
    minutes(12, &|number, _| number + number / 2, &[]);
    let grown = |number, first| 3 * number + u32::from(first);
    minutes(1, &grown, &all_alerts());
    minutes(8, &grown, &all_alerts());
    minutes(3, &grown, &[]);
    scrapes.check();
}

#[test]
fn log_07_server_errors_are_measured_against_all_calls() {
    for (served, alerts) in [(1_029, &[][..]), (1_028, &["ServerErrors"])] {
        let mut scrapes = quiet_hour();
        let calls = [("200", served), ("500", 21)].map(|(status, count)| {
            format!(
                "http_server_request_duration_seconds_count{{operation=\"getOrder\",http_request_method=\"GET\",\
                 http_response_status_code=\"{status}\"}} {count}\n"
            )
        });
        scrapes.add(&calls.concat());
        scrapes.expect(alerts);
        scrapes.check();
    }
}

/// All recording rules have the same form, so what the tests prove for one metric holds for all.
#[test]
fn log_07_all_metrics_use_the_same_recording_rule() {
    let (expressions, records) = expressions();
    let by = Regex::new(r"sum by \([^)]*\)").unwrap();
    let metric = Regex::new(r"\b[a-z_]+_(total|count)\b").unwrap();
    let recorded = expressions.iter().filter(|expression| expression.contains("\"first value\""));
    let rules: Vec<_> =
        recorded.map(|rule| metric.replace_all(&by.replace(rule, "sum"), "metric").into_owned()).collect();
    assert_eq!(rules.len(), records.len());
    assert_eq!(rules.iter().collect::<BTreeSet<_>>().len(), 1, "{rules:#?}");
}
