//! The vocabulary of the suite: a [`TestApp`] or [`ServiceProcess`] under test, [`Actor`]s that
//! call it, stand-ins for its dependencies, and SQL on its database.
//!
//! Everything that more than one test file needs lives here; test files do not import each other.

mod actor;
pub mod api_keys;
mod app;
pub mod audit_trail;
pub mod authn;
mod authority;
mod billing_fixture;
mod collector;
pub mod events;
mod eventually;
mod file_secrets_service;
pub mod h2;
mod incident;
pub mod interop_provider;
mod key_commands;
mod keys;
mod load;
mod logins;
mod misbehaving_issuer;
pub mod mtls;
mod operation;
mod optional_tool;
mod orders_app;
mod pg_proxy;
mod postgres;
pub mod promtool;
mod redis;
mod restartable_postgres;
mod service_process;
mod settings;
mod sql;
mod tcp_switch;
mod tokens;
pub mod vault;

pub use actor::{Actor, Credential, Reply};
pub use app::{ACME, AUDIENCE, GLOBEX, TestApp, UNTHROTTLED, keyset};
pub use authority::{Authority, PemFiles};
pub use billing_fixture::{BillingFixture, id, id_of, order_body, unused_id};
pub use collector::{Collector, Record, Span};
pub use events::Fields;
pub use eventually::{eventually, eventually_recovered};
pub use file_secrets_service::FileSecretsService;
pub use incident::{incident, run_incident};
pub use key_commands::{
    COUNT_INDEXED, DATA_KEY, INDEX_KEY, SHORT_TIMEOUTS, add_customers, assert_customers_readable, copy_customers,
    customer, customers_by_key, restore_customer, run_keys, run_keys_binary, run_keys_binary_with, save_customer,
    start_error, start_with_vault, try_start, variables, vault_and_keyset, vault_key, vault_only, wrapping_keys,
};
pub use keys::TestKey;
pub use load::{Caller, Load, LoadRequest, OutageTimes};
pub use logins::Logins;
pub use misbehaving_issuer::MisbehavingIssuer;
pub use operation::{MATRIX, Operation};
pub use optional_tool::OptionalTool;
pub use orders_app::{person, start_issuer};
pub use pg_proxy::PgProxy;
pub use postgres::{empty_database, programs, test_database};
pub use redis::Redis;
pub use restartable_postgres::RestartablePostgres;
pub use service_process::{ServiceProcess, binary, parse_log};
pub use settings::PRODUCTION_SETTINGS;
pub use sql::{during_transaction, query, run, run_as_superuser, superuser, wait_for_lock_wait};
pub use tcp_switch::TcpSwitch;
pub use tokens::Forge;
pub use vault::Vault;
