//! E0061: this method takes 2 arguments but 1 argument was supplied
//! A sealed field opens only with a `PersonalDataAccess`, whichever key is at hand.

use palisade::crypto::{RowKey, Sealed};
use sample::domain::Email;

fn open(email: &Sealed<Email>, key: &RowKey) -> bool {
    email.open(key).is_ok()
}

fn main() {
    let _ = open;
}
