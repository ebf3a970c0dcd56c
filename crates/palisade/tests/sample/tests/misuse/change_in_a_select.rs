//! E0080: evaluation panicked: a `select` changes nothing
//! A string is no part of a lock clause.

use palisade::store::__macro::{CheckedText, Use};

const TEXT: CheckedText = CheckedText::new(
    Use::Select,
    "with x as (select 'key') update notes set status = 'archived' where tenant_id = $1 returning id",
);

fn main() {
    let _ = TEXT;
}
