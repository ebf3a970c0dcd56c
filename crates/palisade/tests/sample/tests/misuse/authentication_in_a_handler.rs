//! E0616: field `authenticator` of struct `palisade::http::Context` is private
//! A handler does not authenticate: its permit has the caller.

use palisade::http::Context;

fn authenticate(context: &Context) {
    let _ = &context.authenticator;
}

fn main() {
    let _ = authenticate;
}
