//! E0080: evaluation panicked: a change needs quota Write or Sensitive
//! Changes count against the quotas of changes.

palisade::actions! {
    /// The rows of this file.
    pub static MINE;

    /// An action.
    Change Mine = Post "/v1/mine" as "mine" {
        Authenticated, scope None, permission None, quota Read,
        data Tenant, audit "mine", outage Closed, read_only Refused,
    }
}

fn main() {}
