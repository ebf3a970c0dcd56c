//! E0423: cannot initialize a tuple struct which contains private fields
//! The token that opens sealed fields comes from a permit only.

use palisade::crypto::PersonalDataAccess;

fn see() -> PersonalDataAccess {
    PersonalDataAccess(())
}

fn main() {
    let _ = see;
}
