//! E0451: fields `from`, `to`, `id` and `transaction` of struct `Next` are private
//! A transition comes from a locked object only.

use palisade::store::Next;
use sample::{domain::{NoteId, NoteStatus}, store::StoredNote};

fn forge(id: NoteId) -> Next<StoredNote> {
    Next { from: NoteStatus::Draft, to: NoteStatus::Archived, id, transaction: 1 }
}

fn main() {
    let _ = forge;
}
