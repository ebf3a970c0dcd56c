//! E0624: method `expose` is private
//! The text of personal data is private to the crate of the service.

use service::domain::Email;

fn plain(email: &Email) -> &str {
    email.expose()
}

fn main() {
    let _ = plain;
}
