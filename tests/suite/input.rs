//! Validation of requests (INPUT-02): bounds of the whole published schema, and rules of orders.

use serde_json::{Value, json};
use service::access::roles;

use crate::support::{MATRIX, SERVICE};

/// Collects the schemas without bounds. A text needs a maximum length and a form, a number a
/// minimum and a maximum, a list a maximum length.
fn collect_unbounded(at: &str, schema: &Value, found: &mut Vec<String>) {
    let has = |names: &[&str]| names.iter().any(|name| !schema[*name].is_null());
    // A nullable schema has two types.
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    let is_bounded = match kind {
        Some("string") => has(&["enum"]) || has(&["maxLength"]) && has(&["pattern", "format"]),
        Some("integer" | "number") => has(&["minimum"]) && has(&["maximum"]),
        Some("array") => has(&["maxItems"]),
        _ => true,
    };
    if !is_bounded {
        found.push(at.to_owned());
    }
    match schema {
        Value::Object(members) => {
            // Examples are not schemas.
            let members = members.iter().filter(|(name, _)| !["example", "examples"].contains(&name.as_str()));
            members.for_each(|(name, member)| collect_unbounded(&format!("{at}/{name}"), member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_unbounded(&format!("{at}/-"), item, found)),
        _ => {}
    }
}

#[test]
fn input_02_every_text_number_and_list_of_the_document_is_bounded() {
    let document = service::app().document().render(&MATRIX, "https://login.example.com", "https://api.example.com");
    let mut found = Vec::new();
    collect_unbounded("", &document, &mut found);
    assert!(
        found.is_empty(),
        "without bounds: {found:#?}\nA text is a `Text<formats::…>` of crates/palisade/src/http/text; a number has `minimum` and \
         `maximum`, a list `max_items`."
    );
    found.clear();
    let lacking = json!([{ "type": "string", "maxLength": 9 }, { "type": ["string", "null"], "pattern": "^a$" },
        { "type": "integer", "minimum": 1 }, { "type": "array", "items": { "type": "string" } }]);
    collect_unbounded("", &lacking, &mut found);
    assert_eq!(found, ["/-", "/-", "/-", "/-", "/-/items"]);
}

#[tokio::test]
async fn input_02_duplicate_skus_in_an_order_are_rejected() {
    let app = SERVICE.shared();
    let body = json!({
        "lines": [{ "sku": "PAPER-A4", "quantity": 1 }, { "sku": "paper-a4", "quantity": 1 }],
        "shippingSpeed": "standard",
    });
    let reply = app.user(roles::SALES).post("/v1/orders", &body).await;
    assert_eq!(reply.problem(422), "unprocessable");
    assert_eq!(reply.faults(), ["/lines/1/sku duplicate"]);
}
