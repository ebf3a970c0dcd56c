//! E0080: evaluation panicked: a read needs another quota than Write
//! Reads do not use up the quota of changes.

palisade::actions! {
    /// The rows of this file.
    pub static MINE;

    /// An action.
    Read Mine = Get "/v1/mine" as "mine" {
        Authenticated, scope None, permission None, quota Write,
        data Tenant, audit "mine", outage Closed, read_only Served,
    }
}

fn main() {}
