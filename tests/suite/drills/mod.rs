//! Heavy drills: floods, outages, alerts, runbooks, and misuse that must not compile. They take a third
//! of the suite's time; `cargo test -- --skip drills::` leaves them out.

mod abuse;
mod alerts;
mod floods;
mod misuse;
mod outages;
mod runbooks;
