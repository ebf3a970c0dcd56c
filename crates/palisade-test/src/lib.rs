//! Test kit of services on the kernel `palisade`.
//!
//! A suite declares its service once ([`TestService`]) and starts it in each test as a [`TestApp`],
//! with a database and an issuer of its own. [`Actor`]s call it over real sockets. Dependencies that
//! misbehave, broken tokens and SQL on the database are here too.
//!
//! ```text
//! static SERVICE: LazyLock<TestService> =
//!     LazyLock::new(|| TestService::new(service::app()).with_binary(env!("CARGO_BIN_EXE_<name>")));
//!
//! #[tokio::test]
//! async fn authz_02_viewer_may_not_write() {
//!     let app = SERVICE.shared();
//!     app.user(roles::VIEWER).post("/v1/orders", &order_body()).await.problem(403);
//! }
//! ```
//!
//! PostgreSQL and Redis run in containers or as private processes; `TEST_POSTGRES` and `TEST_REDIS`
//! choose ([`postgres`], [`redis`]).

mod actor;
pub mod api_keys;
mod app;
pub mod audit_trail;
pub mod authn;
mod authority;
mod browser;
pub mod catalog;
mod collector;
pub mod control_suite;
mod controls;
mod database_dump;
pub mod dpop;
pub mod events;
mod eventually;
mod free_address;
pub mod h2;
mod incident;
mod keys;
mod load;
mod logins;
mod misbehaving_issuer;
pub mod mtls;
mod npm;
mod operation;
mod optional_tool;
mod pg_bouncer;
mod pg_proxy;
pub mod postgres;
mod production;
mod proxied_app;
pub mod redis;
mod restartable_postgres;
mod service;
mod service_process;
mod settings;
pub mod source_check;
mod sql;
mod tcp_switch;
mod tenant;
mod tls_front;
mod tokens;
pub mod vault;

use std::path::PathBuf;

pub use actor::{Actor, Credential, Reply, count_successes};
pub use app::{ACME, AUDIENCE, GLOBEX, TestApp, UNTHROTTLED, issuer_of, keyset};
pub use authority::{Authority, PemFiles};
pub use browser::Browser;
pub use collector::{Collector, Record, Span};
pub use control_suite::Fixture;
pub use controls::Controls;
pub use database_dump::assert_not_in_database;
pub use dpop::{DpopClient, Proof};
pub use events::Fields;
pub use eventually::{eventually, eventually_recovered};
pub use free_address::free_address;
pub use incident::{incident, run_incident};
pub use keys::TestKey;
pub use load::{CallLog, Caller, Load, LoadRequest, OutageTimes};
pub use logins::Logins;
pub use misbehaving_issuer::MisbehavingIssuer;
pub use npm::NpmPackages;
pub use operation::{Operation, QueryParameter};
pub use optional_tool::OptionalTool;
pub use pg_bouncer::PgBouncer;
pub use pg_proxy::PgProxy;
pub use postgres::{empty_database, programs};
pub use production::Production;
pub use proxied_app::{CountedRequest, ProxiedApp};
pub use redis::Redis;
pub use restartable_postgres::RestartablePostgres;
pub use service::TestService;
pub use service_process::{ServiceProcess, parse_log};
pub use settings::PRODUCTION_SETTINGS;
pub use sql::{during_transaction, query, run, run_as_superuser, superuser, wait_for_lock_wait};
pub use tcp_switch::TcpSwitch;
pub use tenant::{admin_of, rows_of_tenant, run_tenant, suspended_long_ago};
pub use tls_front::TlsFront;
pub use tokens::Forge;
pub use vault::Vault;

/// The folder `tmp` of the target folder, where tests of a workspace may write.
pub fn scratch_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    // target/<profile>/deps/<program>
    let folder = program.ancestors().nth(3).unwrap().join("tmp");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
