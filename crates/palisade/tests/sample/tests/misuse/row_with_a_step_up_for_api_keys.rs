//! E0080: evaluation panicked: an operation with a step-up is closed to API keys
//! An API key cannot sign in again.

palisade::actions! {
    /// The rows of this file.
    pub static MINE;

    /// An action.
    Read Mine = Get "/v1/mine" as "mine" {
        Authenticated, scope None, permission None, quota Read,
        data Tenant, audit "mine", outage Closed, read_only Served, step_up palisade::authz::StepUp::RECENT,
    }
}

fn main() {}
