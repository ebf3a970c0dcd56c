//! Heavy drills: floods, outages, alerts, runbooks. Each runs for seconds; `cargo test -- --skip drills::` leaves them out.

mod abuse;
