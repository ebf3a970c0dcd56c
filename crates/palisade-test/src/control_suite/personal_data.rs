//! Personal data: masked for callers without the right to see it (AUTHZ-06), sealed in the database
//! (CRYPTO-02), and in no log line (LOG-02).
//!
//! The database says which columns are sealed. A property has the name of its column in camel case,
//! as `taxId` of `tax_id`, so the checks know its plain values from the replies of an administrator
//! and from the examples of bodies.

use std::collections::{BTreeMap, BTreeSet};

use palisade::{
    authz::{Callers, DataClass, QuotaClass, Role, policy::SEE_PERSONAL},
    crypto,
    dev::issuer::SERVICE_CLIENT,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};

use super::{Fixture, Objects};
use crate::{ACME, Actor, Operation, ServiceProcess, TestApp, UNTHROTTLED, query, superuser};

/// Shorter values are not searched: masked text shows the last four characters.
const SHORTEST: usize = 5;

/// Plain values of sealed columns.
struct PlainValues {
    /// The sealed columns, by the properties that show them.
    columns: BTreeMap<String, String>,
    /// The properties of which the values include one.
    found: BTreeSet<String>,
    values: BTreeSet<String>,
}

impl PlainValues {
    async fn new(app: &TestApp) -> Self {
        let columns = "select distinct a.attname::text from pg_attribute a join pg_class c on c.oid = a.attrelid
                       where c.relkind in ('r', 'p') and c.relnamespace <> 'palisade'::regnamespace
                         and a.atttypid = 'palisade.sealed'::regtype and not a.attisdropped";
        let columns = query(&app.database.owner, columns).await;
        let columns = columns.into_iter().map(|column| (camel_case(&column), column)).collect();
        Self { columns, found: BTreeSet::new(), values: BTreeSet::new() }
    }

    /// Adds the values of these properties, at any depth. A masked value is none.
    fn add(&mut self, body: &Value) {
        match body {
            Value::Object(members) => {
                for (name, member) in members {
                    match member.as_str() {
                        Some(text) if self.columns.contains_key(name) => {
                            if text.len() >= SHORTEST && !text.starts_with("****") {
                                self.found.insert(name.clone());
                                self.values.insert(text.to_owned());
                            }
                        }
                        _ => self.add(member),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            _ => {}
        }
    }

    /// Calls every operation with personal data as an administrator and keeps the plain values.
    /// Erasures follow, so each object is read before its call.
    async fn call_everything<F: Fixture>(&mut self, objects: &Objects<F>, all: &[Operation]) {
        for operation in all.iter().filter(|operation| operation.row.data == DataClass::Personal) {
            let object = objects.create(operation).await;
            if operation.has_object() {
                self.add(&objects.read(&operation.path, &object).await);
            }
            operation.example.iter().for_each(|example| self.add(example));
            self.add(&operation.call(&objects.admin, &object).await.body);
        }
        assert!(
            !self.columns.is_empty() || all.iter().all(|operation| operation.row.data != DataClass::Personal),
            "the service has operations with `data Personal`, and its database no sealed column: seal personal data"
        );
        let missing: Vec<&String> =
            self.columns.iter().filter(|(name, _)| !self.found.contains(*name)).map(|(_, column)| column).collect();
        assert!(
            missing.is_empty(),
            "no operation shows a plain value of the sealed columns {missing:?}: create objects with them in the \
             fixture, declare operations that show them as `data Personal`, and name properties as their columns, \
             in camel case"
        );
    }

    /// The values that the text contains.
    fn found_in(&self, text: &str) -> Vec<&String> {
        self.values.iter().filter(|value| forms(value).iter().any(|form| text.contains(form))).collect()
    }
}

fn camel_case(column: &str) -> String {
    let mut words = column.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| format!("{name}{}{}", word[..1].to_uppercase(), &word[1..]))
}

/// The value as text, inside JSON, and as bytes in hexadecimal.
fn forms(value: &str) -> [String; 3] {
    let quoted = json!(value).to_string();
    [value.to_owned(), quoted[1..quoted.len() - 1].to_owned(), crypto::hex(value.as_bytes())]
}

/// The callers that may call the operation and see personal data masked.
async fn callers_without_the_right(
    app: &TestApp,
    operation: &Operation,
    api_key: Option<&Actor>,
) -> Vec<(String, Actor)> {
    let permits = |role: Role| {
        let mut roles = app.rights.roles.0.iter();
        let permissions = roles.find(|(other, _)| *other == role).map_or(&[][..], |(_, permissions)| *permissions);
        let is_permitted = operation.row.permission.is_none_or(|permission| permissions.contains(&permission));
        is_permitted.then(|| !permissions.contains(&SEE_PERSONAL))
    };
    let mut callers = Vec::new();
    for (role, _) in app.rights.roles.0.iter().filter(|(role, _)| *role != Role::SERVICE) {
        if permits(*role) == Some(true) {
            callers.push((format!("the role {}", role.as_str()), app.user(*role)));
        }
    }
    if permits(Role::SERVICE) == Some(true) {
        let service = app.forge().claim("sub", SERVICE_CLIENT).claim("client_id", SERVICE_CLIENT);
        callers.push(("a service".to_owned(), app.bearer(service.claim("roles", Value::Null).token())));
    }
    // Whatever roles its creator has.
    if let Some(api_key) = api_key.filter(|_| operation.row.callers == Callers::Authenticated) {
        callers.push(("an API key".to_owned(), api_key.clone()));
    }
    callers
}

/// No response to a caller without the right to see personal data contains a plain value, and no
/// list and no response to a change does.
pub async fn is_masked<F: Fixture>(app: &TestApp) {
    let all = Operation::all(app.service);
    let acme = Objects::<F>::new(app, &ACME);
    let mut plain = PlainValues::new(app).await;
    plain.call_everything(&acme, &all).await;
    let api_key = app.api_key_with_all_scopes().await;
    for operation in all.iter().filter(|operation| operation.row.callers != Callers::Public) {
        let mut callers = callers_without_the_right(app, operation, api_key.as_ref()).await;
        // Plain text is read one object at a time, whatever the caller may see.
        if operation.returned.iter().any(|name| name == "nextCursor") {
            callers.push(("an administrator in a list".to_owned(), app.user(app.service.admin_role())));
        }
        // The scope to change an object is not the scope to read it.
        if matches!(operation.row.quota, QuotaClass::Write | QuotaClass::Sensitive) {
            callers.push(("an administrator who changes it".to_owned(), app.user(app.service.admin_role())));
        }
        for (name, caller) in callers {
            let object = acme.create(operation).await;
            // The reply may show values that only this object has.
            if operation.has_object() {
                plain.add(&acme.read(&operation.path, &object).await);
            }
            let reply = operation.call(&caller, &object).await;
            let shown = plain.found_in(&reply.text);
            assert!(
                shown.is_empty(),
                "{operation} shows {shown:?} to {name}, which must get it masked: render the property with \
                 `Sealed::masked`"
            );
        }
    }
}

/// After calls of every operation, no column of any table contains a plain value.
pub async fn is_stored_sealed<F: Fixture>(app: &TestApp) {
    let all = Operation::all(app.service);
    let acme = Objects::<F>::new(app, &ACME);
    let mut plain = PlainValues::new(app).await;
    plain.call_everything(&acme, &all).await;
    let forms: Vec<String> = plain.values.iter().flat_map(|value| forms(value)).collect();
    let tables = "select c.oid::regclass::text from pg_class c
                  where c.relkind in ('r', 'p') and c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
                  order by 1";
    // As the superuser, who sees the rows of all tenants.
    let mut superuser = superuser(&app.database).await;
    for table in query(&app.database.owner, tables).await {
        let sql = format!(
            "select distinct e.key from {table} t, jsonb_each_text(to_jsonb(t)) e, unnest($1::text[]) form
             where strpos(e.value, form) > 0 order by 1"
        );
        let columns = sqlx::query(AssertSqlSafe(sql)).bind(&forms).fetch_all(&mut superuser).await.unwrap();
        let columns: Vec<String> = columns.iter().map(|row| row.get(0)).collect();
        assert!(
            columns.is_empty(),
            "{table} has the plain values of sealed columns in {columns:?}: seal them there too, or do not store them"
        );
    }
}

/// A process of the service writes no plain value to its log. It shares database and issuer with the
/// app.
pub async fn is_not_logged<F: Fixture>(app: &TestApp) {
    let all = Operation::all(app.service);
    let acme = Objects::<F>::new(app, &ACME);
    let mut plain = PlainValues::new(app).await;
    plain.call_everything(&acme, &all).await;
    let mut variables = TestApp::variables(&app.database, app.issuer.url());
    variables.extend(UNTHROTTLED.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let process = ServiceProcess::start(app.service, &variables).await;
    let admin = app.service.person(&ACME, app.service.admin_role());
    let admin = Actor::new(process.address, Some(app.issuer.access_token(&admin, app.rights.scopes)));
    let first_lines = json!(process.log_lines).to_string();
    for operation in &all {
        let object = acme.create(operation).await;
        operation.call(&admin, &object).await;
        for value in &plain.values {
            // Where a caller may put such a value by mistake.
            let path = operation.path_of(&object);
            let query: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
            admin.send(admin.request(operation.method.clone(), &format!("{path}?value={query}"))).await;
            if let Some(example) = &operation.example {
                let mut body = example.clone();
                body["unknownProperty"] = json!(value);
                operation.call_with(&admin, &object, Some(&body), &[]).await;
            }
        }
    }
    let (_, log) = process.terminate().await;
    assert!(!log.is_empty(), "the process writes no log");
    for (part, text) in [("first lines", &first_lines), ("log", &log)] {
        let found = plain.found_in(text);
        assert!(found.is_empty(), "the {part} of the service contain the personal data {found:?}: log no values");
    }
}
