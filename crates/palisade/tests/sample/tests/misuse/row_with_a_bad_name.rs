//! E0080: evaluation panicked: a name has 1 to 64 visible ASCII characters
//! Names appear in logs and headers, so they are plain.

palisade::actions! {
    /// The rows of this file.
    pub static MINE;

    /// An action.
    Read Mine = Get "/v1/mine" as "mine" {
        Authenticated, scope None, permission None, quota Read,
        data Tenant, audit "my audit", outage Closed, read_only Served,
    }
}

fn main() {}
