//! E0080: evaluation panicked: a function that is not in `FUNCTIONS` of palisade/src/store/text_scan.rs
//! The text of a statement is checked at compile time.

use palisade::store::__macro::{CheckedText, Use};

const TEXT: CheckedText = CheckedText::new(
    Use::Select,
    "select set_config('app.tenant_id', '', true) from notes where tenant_id = $1",
);

fn main() {
    let _ = TEXT;
}
