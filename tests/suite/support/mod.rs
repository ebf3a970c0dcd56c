//! What tests are written in: a [`TestApp`], and actors that call it.

mod actor;
mod app;
mod authority;
mod books;
mod collector;
mod events;
mod eventually;
mod filed;
mod keys;
mod logins;
mod odd_issuer;
mod postgres;
mod redis;
mod serving;
mod tokens;
pub mod vault;
mod wire;

pub use actor::{Actor, Credential, Reply};
pub use app::{ACME, AUDIENCE, GLOBEX, TestApp, UNTHROTTLED, keyset, person, start_issuer};
pub use authority::{Authority, PemFiles};
pub use books::{Books, id};
pub use collector::{Collector, Record, Span};
pub use events::Fields;
pub use eventually::eventually;
pub use filed::FiledService;
pub use keys::TestKey;
pub use logins::Logins;
pub use odd_issuer::OddIssuer;
pub use postgres::{empty_database, programs, query, run, superuser, test_database, wait_for_a_waiter};
pub use redis::Redis;
pub use serving::{Serving, binary};
pub use tokens::Forge;
pub use vault::Vault;
pub use wire::Wire;
