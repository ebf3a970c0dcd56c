//! What tests are written in: a [`TestApp`], and actors that call it.

mod actor;
mod app;
mod authority;
mod books;
mod collector;
mod door;
mod events;
mod eventually;
mod filed;
pub mod h2;
mod keys;
mod load;
mod logins;
mod odd_issuer;
mod own_postgres;
mod postgres;
pub mod promtool;
mod redis;
mod serving;
mod tokens;
pub mod vault;
mod wanted;
mod wire;

pub use actor::{Actor, Credential, Reply};
pub use app::{ACME, AUDIENCE, GLOBEX, TestApp, UNTHROTTLED, keyset, person, start_issuer};
pub use authority::{Authority, PemFiles};
pub use books::{Books, id, id_of};
pub use collector::{Collector, Record, Span};
pub use door::Door;
pub use events::Fields;
pub use eventually::eventually;
pub use filed::FiledService;
pub use keys::TestKey;
pub use load::{Ask, Caller, Load, Stages};
pub use logins::Logins;
pub use odd_issuer::OddIssuer;
pub use own_postgres::OwnPostgres;
pub use postgres::{
    as_superuser, empty_database, in_the_middle, programs, query, run, superuser, test_database, wait_for_a_waiter,
};
pub use redis::Redis;
pub use serving::{Serving, binary};
pub use tokens::Forge;
pub use vault::Vault;
pub use wanted::Wanted;
pub use wire::Wire;
