//! E0521: borrowed data escapes outside of function
//! The right to see personal data ends with the request, as its permit does.

use palisade::authz::Permit;
use sample::access::actions::GetNote;

fn keep(permit: &Permit<GetNote>) {
    let access = permit.personal_data_access();
    std::thread::spawn(move || access.is_some());
}

fn main() {
    let _ = keep;
}
