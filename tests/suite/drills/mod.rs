//! Heavy drills: floods, outages, secrets that change under load, canaries, alerts, runbooks, query plans
//! of large tables, and misuse that must not compile. `cargo test -- --skip drills::` leaves them out.

mod abuse;
mod alerts;
mod canaries;
mod floods;
mod misuse;
mod outages;
mod plans;
mod reload;
mod runbooks;
