//! E0080: evaluation panicked: an object with a `status` is not replaced by an `insert`
//! An insert needs no object permit, so it must not change an object.

use palisade::store::__macro::{CheckedText, Use};

const TEXT: CheckedText = CheckedText::new(
    Use::Insert,
    "insert into notes (tenant_id, id) values ($1, $2) on conflict (tenant_id, id) do update set status = 'archived'",
);

fn main() {
    let _ = TEXT;
}
