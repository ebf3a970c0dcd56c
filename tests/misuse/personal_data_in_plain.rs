//! E0624: method `expose` is private
use service::domain::Email;

fn plain(email: &Email) -> &str {
    email.expose()
}

fn main() {
    let _ = plain;
}
