//! E0277: the trait bound `Everything: actions::sealed::Sealed` is not satisfied
//! Actions are sealed, so a service cannot declare one that no row of the matrix covers.

use service::authz::Action;

enum Everything {}

impl Action for Everything {
    const OPERATION: &'static str = "getOrder";
}

fn main() {}
