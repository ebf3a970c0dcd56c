//! Hostile bodies for every operation that takes one: malformed JSON, other media types, sizes
//! (INPUT-01, INPUT-03 to INPUT-05), and each value that the schema does not allow (INPUT-02).

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Fixture, Objects, responses::assert_problem};
use crate::{ACME, Actor, Operation, Reply, TestApp};

/// Part of the hostile texts. No response may repeat it.
const MARKER: &str = "ZqMARKER9";

/// A body as it is sent, and the status that it must get.
struct Hostile {
    name: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
    status: u16,
}

/// Bodies that are not one JSON text of the limits are rejected, and change nothing.
pub async fn malformed_is_rejected<F: Fixture>(app: &TestApp) {
    let acme = Objects::<F>::new(app, &ACME);
    for operation in Operation::all(app.service) {
        let Some(example) = &operation.example else { continue };
        let object = acme.create(&operation).await;
        let before = state(&acme, &operation, &object).await;
        for hostile in malformed(example) {
            let request = operation.request(&acme.admin, &object).header("content-type", hostile.content_type);
            let reply = send(&operation, &acme.admin, request.body(hostile.body)).await;
            assert_refused(&operation, hostile.name, hostile.status, &reply);
        }
        let text = example.to_string();
        let without_type = send(&operation, &acme.admin, operation.request(&acme.admin, &object).body(text.clone()));
        assert_refused(&operation, "a body without a media type", 415, &without_type.await);
        let compressed = operation.request(&acme.admin, &object).header("content-type", "application/json");
        let compressed = send(&operation, &acme.admin, compressed.header("content-encoding", "gzip").body(text));
        assert_refused(&operation, "a compressed body", 415, &compressed.await);
        assert_eq!(state(&acme, &operation, &object).await, before, "{operation} was refused and changed the object");
    }
}

fn malformed(example: &Value) -> Vec<Hostile> {
    let text = example.to_string();
    let json = |name, body: String, status| Hostile {
        name,
        content_type: "application/json",
        body: body.into_bytes(),
        status,
    };
    let (first, value) = example.as_object().unwrap().iter().next().unwrap();
    let members: Vec<String> = (0..257).map(|n| format!("\"{n}\":0")).collect();
    let mut all = vec![
        json("a text that is not JSON", MARKER.to_owned(), 400),
        json("an unfinished object", format!("{{\"{MARKER}\":1"), 400),
        json("no body", String::new(), 400),
        json("two JSON texts", format!("{text} {{}}"), 400),
        json("a duplicate key", format!("{{\"{first}\":{value},{}", &text[1..]), 400),
        json("JSON that is nested too deep", format!("{}{}", "[".repeat(17), "]".repeat(17)), 400),
        json("too many members", format!("{{{}}}", members.join(",")), 400),
        json("an array", format!("[\"{MARKER}\"]"), 400),
        json("a string", format!("\"{MARKER}\""), 400),
        json("a number", "1".to_owned(), 400),
        json("null", "null".to_owned(), 400),
        json("a lone surrogate", format!("{{\"{first}\":\"{MARKER}\\ud800\"}}"), 400),
        json("a body that is too long", " ".repeat(65_537), 413),
    ];
    let not_utf8 = [b"{\"", first.as_bytes(), b"\":\"\xff\"}"].concat();
    all.push(Hostile { name: "a body not in UTF-8", content_type: "application/json", body: not_utf8, status: 400 });
    let types = [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
    ];
    let other = |content_type| Hostile {
        name: "another media type",
        content_type,
        body: text.clone().into_bytes(),
        status: 415,
    };
    all.extend(types.map(other));
    all
}

/// Each value that the schema does not allow is rejected with its pointer, and changes nothing.
pub async fn schema_is_enforced<F: Fixture>(app: &TestApp) {
    let acme = Objects::<F>::new(app, &ACME);
    for operation in Operation::all(app.service) {
        let Some(example) = &operation.example else { continue };
        let object = acme.create(&operation).await;
        let before = state(&acme, &operation, &object).await;
        let mut cases = Vec::new();
        collect_cases(&operation.schema, "", example, &mut cases);
        assert!(!cases.is_empty(), "{operation}: the schema of the body has no bounds");
        for (pointer, name, body) in cases {
            let case = format!("{name} at \"{pointer}\"");
            let request = operation.request(&acme.admin, &object).json(&body);
            let reply = send(&operation, &acme.admin, request).await;
            assert_refused(&operation, &case, 400, &reply);
            assert_eq!(reply.problem(400), "invalid_input", "{operation} {case}");
            let names_it = |fault: &String| {
                let at = fault.split(' ').next().unwrap_or_default();
                at == pointer || at.strip_prefix(&*pointer).is_some_and(|rest| rest.starts_with('/'))
            };
            assert!(reply.faults().iter().any(names_it), "{operation} {case} is reported as {:?}", reply.faults());
        }
        assert_eq!(state(&acme, &operation, &object).await, before, "{operation} was refused and changed the object");
    }
}

/// Pointer, description and body.
type Case = (String, &'static str, Value);

/// Collects bodies that differ from the example at one pointer.
fn collect_cases(schema: &Value, at: &str, example: &Value, found: &mut Vec<Case>) {
    let mut add = |at: String, name, value: Value| {
        if let Some(body) = replaced(example, &at, value) {
            found.push((at, name, body));
        }
    };
    for value in values_of_other_types(schema) {
        add(at.to_owned(), "a value of another type", value);
    }
    for (name, value) in values_out_of_bounds(schema, example.pointer(at)) {
        add(at.to_owned(), name, value);
    }
    let Some(here) = example.pointer(at) else { return };
    if here.is_object() {
        add(format!("{at}/{MARKER}"), "an unknown property", json!(1));
        // The fault of an unknown property is at its object: the name could be any text.
        if let Some(last) = found.last_mut() {
            at.clone_into(&mut last.0);
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let mut body = example.clone();
        if let Some(members) = body.pointer_mut(at).and_then(Value::as_object_mut) {
            members.remove(name);
            found.push((format!("{at}/{name}"), "a missing property", body));
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        collect_cases(property, &format!("{at}/{name}"), example, found);
    }
    if here.get(0).is_some() {
        collect_cases(&schema["items"], &format!("{at}/0"), example, found);
    }
}

/// The types that the schema allows; a nullable schema has two.
fn types(schema: &Value) -> Vec<&str> {
    let kind = &schema["type"];
    kind.as_str().into_iter().chain(kind.as_array().into_iter().flatten().filter_map(Value::as_str)).collect()
}

fn values_of_other_types(schema: &Value) -> Vec<Value> {
    let allowed = types(schema);
    let values = [
        ("null", Value::Null),
        ("boolean", json!(true)),
        ("number", json!(1.5)),
        ("string", json!(MARKER)),
        ("array", json!([MARKER])),
        ("object", json!({ MARKER: MARKER })),
    ];
    let others = values.into_iter().filter(|(kind, _)| !allowed.is_empty() && !allowed.contains(kind));
    others.map(|(_, value)| value).collect()
}

fn values_out_of_bounds(schema: &Value, example: Option<&Value>) -> Vec<(&'static str, Value)> {
    let mut found = Vec::new();
    let count = |name: &str| schema[name].as_u64().and_then(|count| usize::try_from(count).ok());
    let number = |name: &str| schema[name].as_f64();
    let allowed = types(schema);
    if allowed.contains(&"string") {
        if schema["enum"].is_array() {
            found.push(("a text that is not listed", json!(MARKER)));
        } else {
            found.push(("a control character", json!(format!("{MARKER}\u{1b}"))));
        }
        if let Some(most) = count("maxLength") {
            let long: String = MARKER.chars().cycle().take(most + 1).collect();
            found.push(("a long text", json!(long)));
        }
        if count("minLength").is_some_and(|least| least > 0) {
            found.push(("an empty text", json!("")));
        }
    }
    if allowed.contains(&"integer") {
        // The document has bounds as floats, which round large ones.
        #[expect(clippy::cast_possible_truncation, reason = "a bound is an integer below 2^53")]
        if let Some(most) = number("maximum") {
            found.push(("a large number", json!(2 * most as i64 + 2)));
        }
        #[expect(clippy::cast_possible_truncation, reason = "a bound is an integer below 2^53")]
        if let Some(least) = number("minimum") {
            found.push(("a small number", json!(least as i64 - 1)));
        }
    }
    if let (true, Some([first, ..])) =
        (allowed.contains(&"array"), example.and_then(Value::as_array).map(Vec::as_slice))
    {
        // A longer array is rejected before the schema is read.
        if let Some(most) = count("maxItems").filter(|most| *most < 256) {
            found.push(("a long list", json!(vec![first; most + 1])));
        }
        if count("minItems").is_some_and(|least| least > 0) {
            found.push(("an empty list", json!([])));
        }
        if schema["uniqueItems"] == true {
            found.push(("an item twice", json!([first, first])));
        }
    }
    found
}

/// The example with this value at the pointer, if the pointer's parent exists.
pub(super) fn replaced(example: &Value, at: &str, value: Value) -> Option<Value> {
    let mut body = example.clone();
    let Some((parent, name)) = at.rsplit_once('/') else { return Some(value) };
    match body.pointer_mut(parent)? {
        Value::Object(members) => {
            members.insert(name.to_owned(), value);
        }
        Value::Array(items) => *items.get_mut(name.parse::<usize>().ok()?)? = value,
        _ => return None,
    }
    Some(body)
}

async fn state<F: Fixture>(objects: &Objects<F>, operation: &Operation, object: &str) -> Value {
    if operation.has_object() { objects.read(&operation.path, object).await } else { Value::Null }
}

async fn send(operation: &Operation, actor: &Actor, request: reqwest::RequestBuilder) -> Reply {
    let key = operation.takes_key.then(|| Uuid::now_v7().to_string());
    actor.send(key.iter().fold(request, |request, key| request.header("idempotency-key", key))).await
}

fn assert_refused(operation: &Operation, case: &str, status: u16, reply: &Reply) {
    assert_eq!(reply.status.as_u16(), status, "{operation} must refuse {case} with {status}: {reply:#?}");
    assert_problem(operation, status, reply);
    assert!(!reply.text.contains(MARKER), "{operation} repeats the rejected value of {case}: {}", reply.text);
}
