//! E0616: field `open` of struct `ReadTx` is private
//! Only the store sends SQL, so a transaction does not hand out its connection.

use palisade::store::ReadTx;
use service::access::actions::GetOrder;

fn connection(tx: &ReadTx<'_, GetOrder>) {
    let _ = &tx.open;
}

fn main() {
    let _ = connection;
}
