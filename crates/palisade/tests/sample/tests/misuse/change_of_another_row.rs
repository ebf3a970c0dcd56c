//! E0080: evaluation panicked: a change ends with `where tenant_id = $1 and id = $2`
//! The kernel binds the id of the locked object, so a change cannot name another row.

use palisade::store::__macro::{CheckedText, Use};

const TEXT: CheckedText =
    CheckedText::new(Use::Change, "update notes set remark = null where tenant_id = $1 and id = $3");

fn main() {
    let _ = TEXT;
}
