//! E0080: evaluation panicked: a statement names its `tenant_id`
//! The text of a statement is checked at compile time.

use palisade::store::__macro::{CheckedText, Use};

const TEXT: CheckedText = CheckedText::new(Use::Select, "select id from notes where id = $1");

fn main() {
    let _ = TEXT;
}
