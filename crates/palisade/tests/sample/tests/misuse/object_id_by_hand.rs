//! E0046: missing: `__uuid`
//! Only `ids!` declares ids of objects. Another type could lock one row and change a second one.

use palisade::model::ObjectId;
use sample::domain::NoteId;

#[derive(Clone, Copy, Debug)]
struct TwoIds(NoteId, NoteId);

impl palisade::model::AuditObject for TwoIds {
    fn __object(&self) -> String {
        self.0.to_string()
    }
}

impl ObjectId for TwoIds {}

fn main() {
    let _ = |ids: TwoIds| ids.1;
}
