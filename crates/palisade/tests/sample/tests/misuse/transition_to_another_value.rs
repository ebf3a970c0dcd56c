//! E0080: evaluation panicked: a transition has `set status = $3`, before other columns
//! The kernel binds the new status, as the table of transitions allows it.

use palisade::store::__macro::{CheckedText, Use};

const TEXT: CheckedText = CheckedText::new(
    Use::Transition,
    "update notes set status = 'archived' where tenant_id = $1 and id = $2 and status = $4",
);

fn main() {
    let _ = TEXT;
}
