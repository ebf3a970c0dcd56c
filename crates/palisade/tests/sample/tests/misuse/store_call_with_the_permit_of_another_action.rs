//! E0308: expected `&Permit<GetNote>`, found `&Permit<ListNotes>`
//! A query takes the permit of its own action.

use palisade::{authz::Permit, store::Database};
use sample::{access::actions::ListNotes, domain::NoteId, store::get};

async fn read(database: &Database, permit: &Permit<ListNotes>, id: NoteId) {
    let _ = get(database, permit, id).await;
}

fn main() {
    let _ = read;
}
