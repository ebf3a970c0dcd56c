//! E0061: this method takes 1 argument but 0 arguments were supplied
//! The text of personal data needs a `PersonalDataAccess`, which only a permit gives.

use sample::domain::Email;

fn plain(email: &Email) -> &str {
    email.expose()
}

fn main() {
    let _ = plain;
}
