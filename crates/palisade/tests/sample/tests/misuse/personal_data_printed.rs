//! E0277: `Email` doesn't implement `std::fmt::Display`
//! Personal data has no `Display`, so it cannot reach a log line or message.

use sample::domain::Email;

fn print(email: &Email) -> String {
    format!("{email}")
}

fn main() {
    let _ = print;
}
