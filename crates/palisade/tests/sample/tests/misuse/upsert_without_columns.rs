//! E0080: evaluation panicked: an `insert` with `do update` lists its columns
//! Without columns, the check cannot see whether the object has a `status`.

use palisade::store::__macro::{CheckedText, Use};

const TEXT: CheckedText = CheckedText::new(
    Use::Insert,
    "insert into notes values ($1, $2, $3) on conflict (tenant_id, id) do update set remark = excluded.remark",
);

fn main() {
    let _ = TEXT;
}
