//! E0521: borrowed data escapes outside of function
//! The request owns the permit, so nothing that outlives the request can hold it.

use palisade::authz::Permit;
use service::access::actions::GetOrder;

fn keep(permit: &Permit<GetOrder>) {
    std::thread::spawn(move || permit.tenant());
}

fn main() {
    let _ = keep;
}
