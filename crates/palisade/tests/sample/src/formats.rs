//! The text formats of the sample service. [`crate::domain`] parses personal data with the same
//! patterns.

use palisade::http::text::formats::prose;
pub(crate) use palisade::http::text::formats::{Cursor, IdempotencyKey, MaybeMasked, Subject};

use crate::domain;

palisade::formats! {
    /// The code of an item.
    pub(crate) Code, 3..=64, "^[A-Z0-9-]+$";
    /// Free text on a note, on one line.
    pub(crate) Remark, 1..=domain::Remark::MAX_CHARS, prose("");
    /// An e-mail address. An internationalised domain is in its ASCII form (RFC 5890 section
    /// 2.3.2.1).
    pub(crate) Email, 3..=254, format!(
        r"^[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{label}(?:\.{label})*$",
        label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    );
    /// A telephone number: 7 to 15 digits (ITU-T E.164) with optional spaces, hyphens and
    /// parentheses.
    pub(crate) Phone, 8..=32, r"^\+[ ()-]*[1-9](?:[ ()-]*[0-9]){6,14}[ ()-]*$";
}
