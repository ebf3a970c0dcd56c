//! E0603: function `authorize` is private
//! Only the guard decides, for the row of the route that was called.

use palisade::authz::authorize;

fn main() {
    let _ = authorize;
}
