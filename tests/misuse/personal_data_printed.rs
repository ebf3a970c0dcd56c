//! E0277: `service::domain::Email` doesn't implement `std::fmt::Display`
use service::domain::Email;

fn print(email: &Email) -> String {
    format!("{email}")
}

fn main() {
    let _ = print;
}
