//! Sensitive operations (AUTHN-13): a person needs a recent sign-in (RFC 9470), and no actor calls them
//! (RFC 8693).

use super::{Fixture, Objects};
use crate::{ACME, Operation, TestService, UNTHROTTLED};

/// Each operation with a step-up refuses an old sign-in by a challenge, and each actor. All others
/// take both.
pub async fn step_ups_are_demanded<F: Fixture>(service: &'static TestService) {
    let settings = [&UNTHROTTLED[..], &[("APP_OIDC__ACCEPT_ACTORS", "true")]].concat();
    let app = service.start_with(&settings).await;
    let acme = Objects::<F>::new(&app, &ACME);
    let signed_in = |at: i64| app.bearer(app.forge().claim("auth_time", at).token());
    let now = app.clock.timestamp();
    let with_actor = app.bearer(app.forge().claim("act", serde_json::json!({ "sub": "helpdesk" })).token());
    for operation in Operation::all(service).iter().filter(|operation| operation.row.scope.is_some()) {
        let max_age = operation.row.step_up.map(|step_up| i64::from(step_up.max_age()));
        let object = acme.create(operation).await;
        let old = operation.call(&signed_in(now - max_age.unwrap_or(900) - 60), &object).await;
        let object = if max_age.is_none() { acme.create(operation).await } else { object };
        let by_actor = operation.call(&with_actor, &object).await;
        let Some(max_age) = max_age else {
            assert!(old.status.is_success(), "{operation} has no step-up, and refuses an old sign-in: {old:#?}");
            assert!(by_actor.status.is_success(), "{operation} has no step-up, and refuses an actor: {by_actor:#?}");
            continue;
        };
        assert_eq!(old.status, 401, "{operation} must demand a recent sign-in: {old:#?}");
        assert_eq!(old.problem(401), "insufficient_user_authentication", "{operation}");
        let challenge = old.header("www-authenticate").unwrap();
        for part in [
            "Bearer realm=\"",
            ", error=\"insufficient_user_authentication\"",
            &format!(", max_age=\"{max_age}\""),
            ", resource_metadata=\"http",
        ] {
            assert!(challenge.contains(part), "{operation}: {challenge}");
        }
        assert_eq!(by_actor.status, 403, "{operation} must refuse actors: {by_actor:#?}");
        assert_eq!(by_actor.event("authz_fail")["reason"], "actor", "{operation}");
        let recent = operation.call(&signed_in(now), &object).await;
        assert!(recent.status.is_success(), "{operation} refuses a recent sign-in: {recent:#?}");
    }
}
