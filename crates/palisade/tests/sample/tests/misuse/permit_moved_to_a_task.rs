//! E0521: borrowed data escapes outside of function
//! The request owns the permit, so nothing that outlives the request can hold it.

use palisade::authz::Permit;
use sample::access::actions::GetNote;

fn keep(permit: &Permit<GetNote>) {
    std::thread::spawn(move || permit.tenant());
}

fn main() {
    let _ = keep;
}
