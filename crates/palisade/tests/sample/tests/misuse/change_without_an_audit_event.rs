//! E0061: this method takes 2 arguments but 0 arguments were supplied
//! A commit takes the permit and the object, so that no change is without an audit event.

use palisade::store::WriteTx;
use sample::access::actions::{ArchiveNote, GetNote};

async fn change(tx: WriteTx<'_, ArchiveNote>) {
    let _ = tx.commit().await;
}

fn main() {
    let _ = change;
}
