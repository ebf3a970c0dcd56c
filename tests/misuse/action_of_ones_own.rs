//! E0277: the trait bound `Everything: actions::sealed::Sealed` is not satisfied
use service::authz::Action;

enum Everything {}

impl Action for Everything {
    const OPERATION: &'static str = "getOrder";
}

fn main() {}
