//! E0277: the trait bound `Spy<'_>: PersonalData` is not satisfied
//! Only `personal_data!` declares types that the kernel seals and indexes, so it hands plain text to
//! no code of the service.

use palisade::crypto::{Sealable, Sealed};
use sample::domain::Email;

struct Spy<'a>(&'a Sealed<Email>);

impl Sealable for Spy<'_> {
    const TABLE: &'static str = "notes";
    const COLUMN: &'static str = "email";
}

fn main() {
    let _ = |sealed| Spy(sealed).0.bytes().len();
}
