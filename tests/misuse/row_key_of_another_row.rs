//! E0061: this method takes 3 arguments but 4 arguments were supplied
//! The row key that an erasure deletes is that of the permitted object.

use palisade::store::{ObjectPermit, WriteTx};
use service::{access::actions::EraseCustomer, domain::{CustomerId, CustomerRef}};

async fn erase(
    tx: &WriteTx<'_, EraseCustomer>,
    permit: &ObjectPermit<'_, EraseCustomer, CustomerRef>,
    other: CustomerId,
) {
    let _ = tx.erase(permit, other, "", Default::default()).await;
}

fn main() {
    let _ = erase;
}
