//! E0277: `service::domain::Email` doesn't implement `std::fmt::Display`
//! Personal data has no `Display`, so it cannot reach a log line or message.

use service::domain::Email;

fn print(email: &Email) -> String {
    format!("{email}")
}

fn main() {
    let _ = print;
}
