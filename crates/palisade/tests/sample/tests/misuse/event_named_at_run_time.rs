//! E0061: this method takes 1 argument but 2 arguments were supplied
//! The name of an event is that of a declared action, and no text.

use palisade::store::{ObjectPermit, WriteTx};
use sample::{access::actions::{ArchiveNote, EraseNote}, store::StoredNote};

fn record(tx: &WriteTx<'_, ArchiveNote>, permit: &ObjectPermit<'_, ArchiveNote, StoredNote>, name: String) {
    let _ = tx.also_record::<EraseNote, _>(permit, name.leak());
}

fn main() {
    let _ = record;
}
