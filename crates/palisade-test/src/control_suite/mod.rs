//! [`control_suite!`](crate::control_suite): one test per control, for every operation of a service.
//!
//! The checks read the operations from the OpenAPI document, the access rules from the route matrix,
//! and the roles from the service. A service supplies a [`Fixture`] and nothing else, so a new
//! operation is checked at once. Each check is a function that panics with the name of the operation
//! and what to do.

pub mod access;
pub mod audit;
mod foreign;
pub mod hostile_input;
pub mod idempotency;
pub mod identity;
mod objects;
pub mod personal_data;
pub mod properties;
pub mod quotas;
pub mod responses;
pub mod routes;
pub mod sign_in;
pub mod tenants;
pub mod token_attacks;

use palisade::dev::people::Tenant;
use serde_json::Value;
use uuid::Uuid;

use crate::TestApp;

pub use objects::Objects;

/// Makes the objects on which the checks call the operations of a service. Those of the kernel's
/// operations are not its task.
pub trait Fixture: Sized + Send + Sync {
    /// Works as an administrator of this tenant.
    fn new(app: &TestApp, tenant: &Tenant) -> Self;

    /// Creates an object in the state that the operations of this path need; its identifier. `None`
    /// if the fixture does not know the path, which fails the checks.
    fn create(&self, path: &str) -> impl Future<Output = Option<String>> + Send;

    /// The object as its own tenant reads it, never null. Checks compare it before and after a call.
    fn read(&self, path: &str, object: &str) -> impl Future<Output = Value> + Send;

    /// An identifier for this path that no object has.
    fn unused_id(_path: &str) -> String {
        Uuid::now_v7().to_string()
    }
}

/// Declares the tests of all checks: `control_suite!(SERVICE, FIXTURE, "path/of/matrix.txt")`.
///
/// `SERVICE` is the static [`TestService`](crate::TestService), `FIXTURE` the type that implements
/// [`Fixture`]. The file has the reviewed table of callers and operations;
/// `UPDATE_SNAPSHOTS=1 cargo test authz_05` writes it.
#[macro_export]
macro_rules! control_suite {
    ($service:expr, $fixture:ty, $snapshot:literal) => {
        $crate::control_suite! { @tests $service;
            async fn threat_01_every_route_has_a_row_and_every_row_a_route = |service| {
                $crate::control_suite::routes::have_rows(service.shared());
            }
            async fn threat_02_openapi_document_matches_the_matrix = |service| {
                $crate::control_suite::routes::document_says_the_same(service);
            }
            async fn threat_03_served_routes_are_the_documented_ones = |service| {
                $crate::control_suite::routes::only_documented_are_served(service.shared()).await;
            }
            async fn authn_01_protected_operations_reject_anonymous_callers = |service| {
                $crate::control_suite::access::anonymous_is_rejected::<$fixture>(service.shared()).await;
            }
            async fn authn_02_forged_signatures_are_rejected = |service| {
                $crate::control_suite::token_attacks::signatures(service).await;
            }
            async fn authn_02_every_operation_verifies_the_signature = |service| {
                $crate::control_suite::token_attacks::every_operation::<$fixture>(service).await;
            }
            async fn authn_03_only_the_algorithm_of_the_key_is_accepted = |service| {
                $crate::control_suite::token_attacks::algorithms(service).await;
            }
            async fn authn_04_wrong_issuer_is_rejected = |service| {
                $crate::control_suite::token_attacks::issuers(service).await;
            }
            async fn authn_05_wrong_audience_is_rejected = |service| {
                $crate::control_suite::token_attacks::audiences(service).await;
            }
            async fn authn_06_tokens_outside_their_lifetime_are_rejected = |service| {
                $crate::control_suite::token_attacks::lifetimes(service).await;
            }
            async fn authn_07_other_token_types_are_rejected = |service| {
                $crate::control_suite::token_attacks::token_types(service).await;
            }
            async fn authn_08_tokens_with_their_own_key_are_rejected = |service| {
                $crate::control_suite::token_attacks::own_keys(service).await;
            }
            async fn authn_13_sensitive_operations_demand_a_recent_sign_in_and_no_actor = |service| {
                $crate::control_suite::sign_in::step_ups_are_demanded::<$fixture>(service).await;
            }
            async fn authz_01_scope_of_an_operation_is_necessary_and_sufficient = |service| {
                $crate::control_suite::access::scopes_are_exact::<$fixture>(service.shared()).await;
            }
            async fn authz_03_foreign_object_is_answered_like_a_missing_one = |service| {
                $crate::control_suite::access::foreign_is_like_missing::<$fixture>(service.shared()).await;
            }
            async fn authz_03_queries_filter_tenants_without_row_level_security = |service| {
                let app = service.start_with(&$crate::UNTHROTTLED).await;
                $crate::control_suite::tenants::queries_filter_tenants::<$fixture>(&app).await;
            }
            async fn authz_05_every_operation_and_role_matches_the_reviewed_table = |service| {
                let app = service.start_with(&$crate::UNTHROTTLED).await;
                $crate::control_suite::access::table_is_reviewed::<$fixture>(&app, $snapshot).await;
            }
            async fn authz_06_unknown_and_read_only_properties_are_rejected = |service| {
                $crate::control_suite::properties::read_only_is_rejected::<$fixture>(service.shared()).await;
            }
            async fn authz_06_personal_data_is_masked_for_callers_without_the_right = |service| {
                let app = service.start_with(&$crate::UNTHROTTLED).await;
                $crate::control_suite::personal_data::is_masked::<$fixture>(&app).await;
            }
            async fn authz_07_every_table_keeps_tenants_apart = |service| {
                $crate::control_suite::tenants::tables_are_isolated(&service.database().await).await;
            }
            async fn authz_09_identity_comes_from_the_credential_alone = |service| {
                let app = service.start_with(&$crate::UNTHROTTLED).await;
                $crate::control_suite::identity::claims_are_ignored::<$fixture>(&app).await;
            }
            async fn input_01_malformed_bodies_are_rejected = |service| {
                $crate::control_suite::hostile_input::malformed_is_rejected::<$fixture>(service.shared()).await;
            }
            async fn input_02_values_outside_the_schema_are_rejected = |service| {
                $crate::control_suite::hostile_input::schema_is_enforced::<$fixture>(service.shared()).await;
            }
            async fn input_08_errors_of_every_operation_are_problems = |service| {
                $crate::control_suite::responses::errors_are_problems::<$fixture>(service.shared()).await;
            }
            async fn input_08_every_response_has_the_security_headers = |service| {
                $crate::control_suite::responses::headers_are_set::<$fixture>(service.shared()).await;
            }
            async fn input_10_creating_operations_replay_their_response = |service| {
                let app = service.start_with(&$crate::UNTHROTTLED).await;
                $crate::control_suite::idempotency::retries_replay::<$fixture>(&app).await;
            }
            async fn crypto_02_sealed_values_are_in_no_other_column = |service| {
                let app = service.start_with(&$crate::UNTHROTTLED).await;
                $crate::control_suite::personal_data::is_stored_sealed::<$fixture>(&app).await;
            }
            async fn log_02_sealed_values_are_in_no_log_line = |service| {
                let app = service.start_with(&$crate::UNTHROTTLED).await;
                $crate::control_suite::personal_data::is_not_logged::<$fixture>(&app).await;
            }
            async fn rate_04_every_operation_counts_in_its_class = |service| {
                let app = service.start_with(&$crate::control_suite::quotas::ONE_PER_CLASS).await;
                $crate::control_suite::quotas::classes_are_counted::<$fixture>(&app).await;
            }
            async fn log_05_every_change_appends_its_audit_event = |service| {
                let app = service.start_with(&$crate::UNTHROTTLED).await;
                $crate::control_suite::audit::changes_have_their_event::<$fixture>(&app).await;
            }
        }
    };
    (@tests $service:expr; $(async fn $name:ident = |$argument:ident| $body:block)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                let $argument: &'static $crate::TestService = &$service;
                $body
            }
        )+
    };
}
