//! E0616: field `open` of struct `ReadTx` is private
//! Only the store sends SQL, so a transaction does not hand out its connection.

use palisade::store::ReadTx;
use sample::access::actions::GetNote;

fn connection(tx: &ReadTx<'_, GetNote>) {
    let _ = &tx.open;
}

fn main() {
    let _ = connection;
}
