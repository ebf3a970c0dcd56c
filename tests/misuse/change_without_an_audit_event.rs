//! E0061: this method takes 2 arguments but 0 arguments were supplied
//! A commit takes the permit and the object, so that no change is without an audit event.

use palisade::store::WriteTx;
use service::access::actions::{CancelOrder, GetOrder};

async fn change(tx: WriteTx<'_, CancelOrder>) {
    let _ = tx.commit().await;
}

fn main() {
    let _ = change;
}
