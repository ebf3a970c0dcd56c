//! E0046: missing: `__object`
//! Only ids and codes are objects of audit events, so personal data cannot become one.

use palisade::model::AuditObject;

struct Mail(String);

impl AuditObject for Mail {}

fn main() {
    let _ = |mail: Mail| mail.0;
}
