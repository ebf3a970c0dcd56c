//! E0603: struct `Grant` is private
//! A grant comes from the decision of `authz` only, and code of a service cannot name it.

use palisade::authz::Grant;

fn main() {
    let _: Option<Grant> = None;
}
