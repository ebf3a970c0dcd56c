//! E0061: this method takes 1 argument but 2 arguments were supplied
//! The name of an event is that of a declared action, and no text.

use palisade::store::{ObjectPermit, WriteTx};
use service::{access::actions::{CancelOrder, VoidInvoice}, domain::Invoice};

fn record(tx: &WriteTx<'_, CancelOrder>, permit: &ObjectPermit<'_, CancelOrder, Invoice>, name: String) {
    let _ = tx.also_record::<VoidInvoice, _>(permit, name.leak());
}

fn main() {
    let _ = record;
}
