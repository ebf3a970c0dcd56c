//! Quotas (RATE-04): each operation counts in the class of its row, and is refused with 429 when the
//! quota of that class is used up.

use palisade::authz::Callers;
use uuid::Uuid;

use super::Fixture;
use crate::{Operation, TestApp, UNTHROTTLED};

/// Settings with one call per minute in each class.
pub const ONE_PER_CLASS: [(&str, &str); 8] = [
    UNTHROTTLED[0],
    UNTHROTTLED[1],
    UNTHROTTLED[2],
    UNTHROTTLED[3],
    ("APP_QUOTA__READ_PER_MINUTE", "1"),
    ("APP_QUOTA__WRITE_PER_MINUTE", "1"),
    ("APP_QUOTA__SENSITIVE_PER_MINUTE", "1"),
    ("APP_QUOTA__EXPORT_PER_MINUTE", "1"),
];

/// Calls each operation twice as a caller of its own, on an app with [`ONE_PER_CLASS`].
pub async fn classes_are_counted<F: Fixture>(app: &TestApp) {
    for operation in Operation::all(app.service) {
        let class = operation.row.quota.as_str();
        // Each has its own subject, and so its own quotas.
        let caller = app.bearer(app.forge().claim("sub", format!("caller-{}", Uuid::now_v7())).token());
        let object = F::unused_id(&operation.path);
        let first = operation.call(&caller, &object).await;
        if operation.row.callers == Callers::Public {
            assert_eq!(first.header("ratelimit-policy"), None, "{operation} is public and has no quota");
            continue;
        }
        let policy = first.header("ratelimit-policy").unwrap_or_default();
        assert!(
            policy.starts_with(&format!("\"{class}\";q=1;")),
            "{operation} must count in the class `{class}` of its row, not as {policy:?}: {first:#?}"
        );
        assert_ne!(first.status, 429, "{operation}: {first:#?}");
        let second = operation.call(&caller, &object).await;
        assert_eq!(second.status, 429, "{operation} must be refused when the quota `{class}` is used up: {second:#?}");
        assert_eq!(second.problem(429), "rate_limited", "{operation}");
        assert_eq!(second.body["limit"], class, "{operation}");
        let seconds: u64 = second.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds), "{operation}: {second:#?}");
    }
}
