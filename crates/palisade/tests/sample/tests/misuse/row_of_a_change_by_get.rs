//! E0080: evaluation panicked: a change cannot be a GET
//! A row that contradicts the kind of its action does not compile.

palisade::actions! {
    /// The rows of this file.
    pub static MINE;

    /// An action.
    Change Mine = Get "/v1/mine" as "mine" {
        Authenticated, scope None, permission None, quota Write,
        data Tenant, audit "mine", outage Closed, read_only Refused,
    }
}

fn main() {}
