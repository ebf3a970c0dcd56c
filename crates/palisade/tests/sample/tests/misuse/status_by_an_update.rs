//! E0080: evaluation panicked: a `status` changes by `transition!`
//! The text of a change is checked at compile time.

use palisade::store::__macro::{CheckedText, Use};

const TEXT: CheckedText =
    CheckedText::new(Use::Change, "update notes set status = 'archived' where tenant_id = $1 and id = $2");

fn main() {
    let _ = TEXT;
}
