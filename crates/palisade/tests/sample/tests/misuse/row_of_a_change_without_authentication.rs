//! E0080: evaluation panicked: a change needs an authenticated caller
//! No change is open to the public.

palisade::actions! {
    /// The rows of this file.
    pub static MINE;

    /// An action.
    Change Mine = Post "/v1/mine" as "mine" {
        Public, scope None, permission None, quota Write,
        data Tenant, audit "mine", outage Closed, read_only Refused,
    }
}

fn main() {}
