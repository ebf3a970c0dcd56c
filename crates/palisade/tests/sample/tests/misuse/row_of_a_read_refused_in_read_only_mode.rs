//! E0080: evaluation panicked: a read is served in read-only mode
//! Read-only mode refuses changes only.

palisade::actions! {
    /// The rows of this file.
    pub static MINE;

    /// An action.
    Read Mine = Get "/v1/mine" as "mine" {
        Authenticated, scope None, permission None, quota Read,
        data Tenant, audit "mine", outage Closed, read_only Refused,
    }
}

fn main() {}
