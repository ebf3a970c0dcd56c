//! E0080: evaluation panicked: public operations have quota Health, those of browsers Health or Credential
//! Calls of authenticated callers are always counted.

palisade::actions! {
    /// The rows of this file.
    pub static MINE;

    /// An action.
    Read Mine = Get "/v1/mine" as "mine" {
        Authenticated, scope None, permission None, quota Health,
        data Tenant, audit "mine", outage Closed, read_only Served,
    }
}

fn main() {}
