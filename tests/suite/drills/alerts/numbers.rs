//! The numbers in the alert rules: at its number an alert is silent, above it it fires, and ten minutes later it has ended.

use std::collections::BTreeSet;

use regex::Regex;

use crate::support::promtool::{Scrapes, expressions};

/// An alert, and series that are at its number together. One more of the first is above it.
type AtItsNumber = (&'static str, &'static [(&'static str, u32)]);

/// Every alert on what was counted in ten minutes, but for [`ReadsUnusual`](super::made_up).
const COUNTED: [AtItsNumber; 16] = [
    (
        "TokenForgery",
        &[
            ("authentications_total{credential=\"token\",result=\"refused\"}", 31),
            ("authentications_total{credential=\"token\",result=\"penalised\"}", 19),
        ],
    ),
    (
        "CredentialStuffing",
        &[
            ("authentications_total{credential=\"api_key\",result=\"refused\"}", 18),
            ("authentications_total{credential=\"api_key\",result=\"penalised\"}", 12),
        ],
    ),
    (
        "ObjectsTriedOut",
        &[
            (
                "http_server_request_duration_seconds_count{operation=\"getOrder\",http_request_method=\"GET\",\
                 http_response_status_code=\"404\"}",
                61,
            ),
            (
                "http_server_request_duration_seconds_count{operation=\"getOrder\",http_request_method=\"GET\",\
                 http_response_status_code=\"403\"}",
                39,
            ),
        ],
    ),
    // 31 of them are penalties.
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
        &[("customers_shown_total{tenant=\"a\"}", 3_000), ("customers_shown_total{tenant=\"b\"}", 1_999)],
    ),
    ("InputRefused", &[("security_events_total{event=\"input_validation_fail\"}", 300)]),
    ("RevokedCredentialUsed", &[("security_events_total{event=\"authn_token_reuse\"}", 0)]),
    ("StoredDataChanged", &[("security_events_total{event=\"sealed_data_invalid\"}", 0)]),
    ("AuditTrailNotSealed", &[("security_events_total{event=\"audit_not_sealed\"}", 0)]),
    ("IncidentHandled", &[("security_events_total{event=\"incident_handled\"}", 0)]),
    ("MeasureUnreadable", &[("security_events_total{event=\"measure_unreadable\"}", 0)]),
    ("SecretNotRenewed", &[("security_events_total{event=\"secret_not_renewed\"}", 0)]),
    ("Panic", &[("security_events_total{event=\"sys_crash\"}", 0)]),
    ("TelemetryLost", &[("telemetry_items_total{outcome=\"lost\",signal=\"spans\"}", 0)]),
];

/// What no alert is about, however much of it there is. The last of them stay below a twentieth of a thousand calls.
const BESIDE: [(&str, u32); 6] = [
    ("authentications_total{credential=\"token\",result=\"accepted\"}", 9_000),
    ("authentications_total{credential=\"none\",result=\"missing\"}", 9_000),
    ("security_events_total{event=\"authz_fail\"}", 9_000),
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

/// Each counter, by its number, the first of an alert's marked.
fn page(count: impl Fn(u32, bool) -> u32) -> String {
    let counted = COUNTED.iter().flat_map(|(_, series)| {
        series.iter().enumerate().map(|(place, (series, number))| (*series, count(*number, place == 0)))
    });
    let beside = BESIDE.iter().map(|(series, number)| (*series, count(*number, false)));
    counted.chain(beside).map(|(series, count)| format!("{series} {count}\n")).collect::<Vec<_>>().concat()
}

fn all() -> Vec<&'static str> {
    let mut all: Vec<_> = COUNTED.iter().map(|(alert, _)| *alert).collect();
    all.sort_unstable();
    all
}

/// After an hour in which there was nothing of it.
fn quiet() -> Scrapes {
    let mut scrapes = Scrapes::default();
    (0..60).for_each(|_| scrapes.add("security_events_total{event=\"secret_read\"} 9\n"));
    scrapes
}

/// The first value of a series is exact.
#[test]
fn log_07_an_alert_is_silent_at_its_number_and_fires_above_it() {
    let mut at = quiet();
    at.add(&page(|number, _| number));
    at.expect(&[]);
    at.check();
    let mut above = quiet();
    for (minutes, alerts) in [(1, all()), (8, all()), (3, Vec::new())] {
        (0..minutes).for_each(|_| above.add(&page(|number, first| number + u32::from(first))));
        above.expect(&alerts);
    }
    above.check();
}

/// Prometheus reckons what a series grew by in ten minutes from its values in them, so it is exact to some tenths.
#[test]
fn log_07_a_counter_that_was_there_before_counts_by_what_it_grew() {
    let mut scrapes = Scrapes::default();
    let mut minutes = |minutes: u32, count: &dyn Fn(u32, bool) -> u32, alerts: &[&str]| {
        (0..minutes).for_each(|_| scrapes.add(&page(count)));
        scrapes.expect(alerts);
    };
    // Long enough for these numbers to be far from the average.
    minutes(150, &|number, _| number, &[]);
    minutes(1, &|number, _| number + number / 2, &[]);
    minutes(12, &|number, _| number + number / 2, &[]);
    let grown = |number, first| 3 * number + u32::from(first);
    minutes(1, &grown, &all());
    minutes(8, &grown, &all());
    minutes(3, &grown, &[]);
    scrapes.check();
}

#[test]
fn log_07_server_errors_are_compared_with_all_calls() {
    for (served, alerts) in [(1_029, &[][..]), (1_028, &["ServerErrors"])] {
        let mut scrapes = quiet();
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

/// So that what is tested of one of these rules holds of all.
#[test]
fn log_07_each_metric_is_counted_by_the_same_rule() {
    let (expressions, records) = expressions();
    let (by, metric) = (Regex::new(r"sum by \([^)]*\)").unwrap(), Regex::new(r"\b[a-z_]+_(total|count)\b").unwrap());
    let recorded = expressions.iter().filter(|expression| expression.contains("\"first value\""));
    let rules: Vec<_> =
        recorded.map(|rule| metric.replace_all(&by.replace(rule, "sum"), "metric").into_owned()).collect();
    assert_eq!(rules.len(), records.len());
    assert_eq!(rules.iter().collect::<BTreeSet<_>>().len(), 1, "{rules:#?}");
}
