//! Who may call what on whose objects: tested for every operation that the document lists, with the
//! document's own examples as bodies. A new operation is in these tests as soon as it exists.

mod objects;

use std::fmt::Write as _;

use http::{HeaderName, Method};
use serde_json::{Value, json};
use service::{
    api,
    authz::{
        matrix::{self, Scope},
        policy::Role,
    },
    dev::issuer::SERVICE_CLIENT,
};
use uuid::Uuid;

use crate::support::{ACME, Actor, GLOBEX, Reply, TestApp, UNTHROTTLED, query, run};
use objects::Objects;

const SNAPSHOT: &str = "tests/suite/access/matrix.txt";

/// An operation as the document describes it.
#[derive(Clone, Debug)]
struct Operation {
    method: Method,
    path: String,
    scope: Option<Scope>,
    takes_key: bool,
    example: Option<Value>,
}

impl Operation {
    /// Every operation of the document.
    fn all() -> Vec<Self> {
        let document = api::document("https://login.example.com", "https://api.example.com");
        let paths = document["paths"].as_object().unwrap();
        let of_path = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(|(method, operation)| Self::of(&document, method, path, operation)).collect::<Vec<_>>()
        };
        let mut all: Vec<Self> = paths.iter().flat_map(of_path).collect();
        all.sort_by_key(|operation| (operation.path.clone(), operation.method.to_string()));
        all
    }

    fn of(document: &Value, method: &str, path: &str, operation: &Value) -> Self {
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let row = matrix::find(&method, path).unwrap();
        let empty = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&empty);
        let schema = &operation["requestBody"]["content"]["application/json; charset=utf-8"]["schema"]["$ref"];
        let example = schema.as_str().map(|schema| {
            let name = schema.rsplit('/').next().unwrap();
            let example = document["components"]["schemas"][name]["examples"][0].clone();
            assert!(example.is_object(), "{name} has no example: add one (`#[oai(example)]`), readers need it too");
            example
        });
        Self {
            scope: row.scope,
            takes_key: parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key"),
            path: path.to_owned(),
            method,
            example,
        }
    }

    fn has_object(&self) -> bool {
        self.path.contains('{')
    }

    fn is_read(&self) -> bool {
        self.method == Method::GET
    }

    /// Calls it with the document's example, on an object if it takes one.
    async fn call(&self, actor: &Actor, object: &str) -> Reply {
        self.call_with(actor, object, self.example.as_ref(), &[]).await
    }

    async fn call_with(&self, actor: &Actor, object: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> Reply {
        let path = match (self.path.find('{'), self.path.find('}')) {
            (Some(start), Some(end)) => format!("{}{object}{}", &self.path[..start], &self.path[end + 1..]),
            _ => self.path.clone(),
        };
        let mut request = actor.request(self.method.clone(), &path);
        if self.takes_key && !headers.iter().any(|(name, _)| *name == "idempotency-key") {
            request = request.header("idempotency-key", Uuid::now_v7().to_string());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        actor.send(request).await
    }
}

/// Everybody there is, as the columns of the snapshot.
async fn callers(app: &TestApp) -> Vec<(&'static str, Actor)> {
    let service =
        app.forge().claim("sub", SERVICE_CLIENT).claim("client_id", SERVICE_CLIENT).claim("roles", Value::Null);
    let mut callers = vec![("anonymous", app.anonymous())];
    callers.extend(Role::ALL.map(|role| (role.as_str(), app.user(role))));
    callers.push(("service", app.bearer(service.token())));
    let for_keys: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| scope.is_for_keys()).collect();
    let key = app.new_api_key(&for_keys).await;
    callers.push(("api key", app.api_key(key["key"].as_str().unwrap())));
    callers
}

#[tokio::test]
async fn authz_05_every_operation_answers_every_role_as_decided() {
    let app = TestApp::shared();
    let (ours, theirs) = (Objects::of(app, &ACME).await, Objects::of(app, &GLOBEX).await);
    let callers = callers(app).await;
    let mut table = format!("{:<36} {:<8}", "operation", "object");
    for (name, _) in &callers {
        let _ = write!(table, " {name:<9}");
    }
    for operation in Operation::all() {
        let kinds: &[&str] = if operation.has_object() { &["own", "other's", "missing"] } else { &["-"] };
        for kind in kinds {
            let _ = write!(table, "\n{:<36} {kind:<8}", format!("{} {}", operation.method, operation.path));
            for (_, caller) in &callers {
                // A new one for each caller: the one before may have changed it.
                let object = match *kind {
                    "own" => ours.make(&operation.path).await,
                    "other's" => theirs.make(&operation.path).await,
                    _ => Objects::missing(&operation.path),
                };
                let status = operation.call(caller, &object).await.status.as_u16();
                let _ = write!(table, " {status:<9}");
            }
            table.truncate(table.trim_end().len());
        }
    }
    table.push('\n');
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(SNAPSHOT, &table).unwrap();
    }
    let expected = std::fs::read_to_string(SNAPSHOT).unwrap_or_default();
    let changed: Vec<&str> = table.lines().filter(|line| !expected.lines().any(|known| known == *line)).collect();
    assert!(
        table == expected,
        "who may call what has changed:\n{}\n\nIf that is what you want: `UPDATE_SNAPSHOTS=1 cargo test authz_05`, and review \
         the difference in {SNAPSHOT} as what it is, a change of rights.",
        changed.join("\n")
    );
}

#[tokio::test]
async fn authz_03_another_tenants_object_is_exactly_a_missing_one() {
    let app = TestApp::shared();
    let theirs = Objects::of(app, &GLOBEX).await;
    let admin = app.user(Role::Admin);
    // Putting a product makes one's own, whatever others have.
    for operation in Operation::all().iter().filter(|o| o.has_object() && o.method != Method::PUT) {
        let object = theirs.make(&operation.path).await;
        let before = theirs.look(&operation.path, &object).await;
        let foreign = operation.call(&admin, &object).await;
        let absent = operation.call(&admin, &Objects::missing(&operation.path)).await;
        assert_eq!(foreign.problem(404), "not_found", "{operation:?}");
        assert_eq!(foreign.comparable(), absent.comparable(), "{operation:?}");
        assert_eq!(theirs.look(&operation.path, &object).await, before, "{operation:?} touched it");
    }
}

#[tokio::test]
async fn authz_03_the_queries_own_filters_hold_without_row_level_security() {
    let app = TestApp::start_with(&UNTHROTTLED).await;
    let theirs = Objects::of(&app, &GLOBEX).await;
    let customer = theirs.make("/v1/customers/{id}").await;
    let only_theirs = theirs.make("/v1/products/{sku}").await;
    let all = "select relname::text from pg_class where relrowsecurity and relkind = 'r'";
    for table in query(&app.database.owner, all).await {
        run(&app.database.owner, &format!("alter table {table} disable row level security")).await.unwrap();
    }
    let admin = app.user(Role::Admin);
    for operation in Operation::all() {
        if operation.has_object() && operation.method != Method::PUT {
            let object = theirs.make(&operation.path).await;
            let before = theirs.look(&operation.path, &object).await;
            assert_eq!(operation.call(&admin, &object).await.problem(404), "not_found", "{operation:?}");
            assert_eq!(theirs.look(&operation.path, &object).await, before, "{operation:?} touched it");
        } else if operation.is_read() && operation.scope.is_some() {
            let (ours, others) = (operation.call(&admin, "").await, operation.call(&theirs.admin, "").await);
            let ids = |page: &Value| -> Vec<String> {
                let items = page["items"].as_array().unwrap().iter();
                items.map(|item| item.get("id").unwrap_or(&item["sku"]).to_string()).collect()
            };
            let (ours, others) = (ids(&ours.ok(200)), ids(&others.ok(200)));
            // Products have the same names in both tenants.
            if operation.path != "/v1/products" {
                assert!(!others.iter().any(|id| ours.contains(id)), "{operation:?}");
            }
            assert!(!ours.contains(&json!(only_theirs).to_string()), "{operation:?}");
        }
    }
    let order = |sku: &str, customer: Option<&str>| {
        let mut order = json!({ "lines": [{ "sku": sku, "quantity": 1 }], "shippingSpeed": "standard" });
        customer.inspect(|customer| order["customerId"] = json!(customer));
        order
    };
    let reply = admin.post("/v1/orders", &order(&only_theirs, None)).await;
    assert_eq!(reply.faults(), ["/lines/0/sku unknown_product"]);
    let reply = admin.post("/v1/orders", &order("PAPER-A4", Some(&customer))).await;
    assert_eq!(reply.faults(), ["/customerId unknown_customer"]);
    // An answer of theirs is not given to somebody of the same name in another tenant.
    let ask = async |actor: &Actor| {
        let request = actor.request(Method::POST, "/v1/orders").header("idempotency-key", "same");
        actor.send(request.json(&order("PAPER-A4", None))).await.ok(201)["id"].clone()
    };
    let namesake = app.forge().claim("sub", "admin@globex.example").token();
    assert_ne!(ask(&theirs.admin).await, ask(&app.bearer(namesake)).await);
}

#[tokio::test]
async fn authz_01_the_scope_of_an_operation_is_needed_and_enough() {
    let app = TestApp::shared();
    let ours = Objects::of(app, &ACME).await;
    for operation in Operation::all() {
        let Some(needed) = operation.scope else { continue };
        let others: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| *scope != needed).collect();
        let object = if operation.has_object() { ours.make(&operation.path).await } else { String::new() };
        let reply = operation.call(&app.user_of(&ACME, Role::Admin, &others), &object).await;
        assert_eq!(reply.problem(403), "insufficient_scope", "{operation:?}");
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", needed.as_str());
        assert_eq!(reply.header("www-authenticate"), Some(challenge.as_str()));
        // A key is given scopes, of those that its maker has.
        let given = if needed == Scope::KeysManage { vec![Scope::OrdersRead, Scope::OrdersWrite] } else { vec![] };
        let enough = [vec![needed], given].concat();
        let reply = operation.call(&app.user_of(&ACME, Role::Admin, &enough), &object).await;
        assert!(reply.status.is_success(), "{operation:?} {reply:#?}");
    }
}

#[tokio::test]
async fn authz_06_properties_that_are_not_the_callers_to_set_are_refused() {
    let app = TestApp::shared();
    let ours = Objects::of(app, &ACME).await;
    let admin = app.user(Role::Admin);
    let somebody = json!(Uuid::now_v7().to_string());
    let money = json!({ "amount": 1, "currency": "EUR" });
    for operation in Operation::all() {
        let Some(example) = &operation.example else { continue };
        let object = if operation.has_object() { ours.make(&operation.path).await } else { String::new() };
        for (name, value) in [
            ("id", somebody.clone()),
            ("tenantId", json!(GLOBEX.id.to_string())),
            ("tenant_id", json!(GLOBEX.id.to_string())),
            ("status", json!("paid")),
            ("total", money.clone()),
            ("paid", money.clone()),
            ("refunded", money.clone()),
            ("number", json!(1)),
            ("masked", json!(false)),
            ("createdBy", json!("somebody-else")),
            ("createdAt", json!("2020-01-01T00:00:00Z")),
            ("role", json!("admin")),
            ("__proto__", json!({ "admin": true })),
        ] {
            let mut body = example.clone();
            body[name] = value;
            let reply = operation.call_with(&admin, &object, Some(&body), &[]).await;
            assert_eq!(reply.problem(400), "invalid_input", "{operation:?} {name}");
            assert_eq!(reply.faults(), [" unknown_field"], "{operation:?} {name}");
        }
    }
}

#[tokio::test]
async fn input_10_every_creating_operation_repeats_its_answer() {
    let app = TestApp::shared();
    let ours = Objects::of(app, &ACME).await;
    let admin = app.user(Role::Admin);
    let mut tried = 0;
    for operation in Operation::all() {
        let object = if operation.has_object() { ours.make(&operation.path).await } else { String::new() };
        let key = [("idempotency-key", "once")];
        let ask = async || operation.call_with(&admin, &object, operation.example.as_ref(), &key).await;
        if operation.takes_key {
            let (first, again) = (ask().await, ask().await);
            assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201), "{operation:?} {again:?}");
            let mut shown_once = first.body.clone();
            // What is shown once is not shown again.
            let secret = shown_once.as_object_mut().unwrap().remove("key");
            assert_eq!(shown_once, again.body, "{operation:?}");
            assert!(secret.is_none_or(|secret| !again.text.contains(secret.as_str().unwrap())), "{operation:?}");
            assert_eq!(first.header("location"), again.header("location"), "{operation:?}");
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{operation:?}");
            tried += 1;
        } else if operation.method == Method::POST {
            // Only what creates something takes a key; the rest is a change of state, which happens once anyway.
            assert_ne!(ask().await.status, 201, "{operation:?} creates something and takes no key");
        }
    }
    assert!(tried >= 5, "only {tried} operations were tried");
}

#[tokio::test]
async fn authz_09_identity_comes_from_the_credential_alone() {
    let app = TestApp::shared();
    let theirs = Objects::of(app, &GLOBEX).await;
    let (acme, globex) = (ACME.id.to_string(), GLOBEX.id.to_string());
    let claims = [
        ("x-tenant-id", globex.as_str()),
        ("x-tenant", globex.as_str()),
        ("tenant_id", globex.as_str()),
        ("x-user-id", "admin@globex.example"),
        ("x-forwarded-user", "admin@globex.example"),
        ("x-remote-user", "admin@globex.example"),
        ("x-roles", "admin"),
        ("x-scope", "orders:write"),
        ("x-original-url", "/v1/me"),
        ("x-http-method-override", "GET"),
        ("cookie", "tenant_id=globex"),
    ];
    let (admin, viewer) = (app.user(Role::Admin), app.user(Role::Viewer));
    for operation in Operation::all().iter().filter(|o| o.has_object() && o.method != Method::PUT) {
        let object = theirs.make(&operation.path).await;
        let reply = operation.call_with(&admin, &object, operation.example.as_ref(), &claims).await;
        assert_eq!(reply.problem(404), "not_found", "{operation:?}");
        if !operation.is_read() {
            let reply = operation.call_with(&viewer, &object, operation.example.as_ref(), &claims).await;
            assert_eq!(reply.problem(403), "forbidden", "{operation:?}");
        }
    }
    // Nor does a query parameter count: none is known.
    for name in ["tenantId", "tenant_id", "sub", "role"] {
        let reply = admin.get(&format!("/v1/orders?{name}={globex}")).await;
        assert_eq!(reply.faults(), [" unknown_parameter"], "{name}");
    }
    let me = viewer.send(viewer.request(Method::GET, "/v1/me").headers(headers(&claims))).await.ok(200);
    assert_eq!(me["tenantId"], acme);
    assert_eq!(me["subject"], "viewer@acme.example");
    assert_eq!(me["roles"], json!(["viewer"]));
    // What is created says who did it, whatever was claimed.
    let order = json!({ "lines": [{ "sku": "PAPER-A4", "quantity": 1 }], "shippingSpeed": "standard" });
    let request = admin.request(Method::POST, "/v1/orders").headers(headers(&claims)).json(&order);
    assert_eq!(admin.send(request).await.ok(201)["createdBy"], "admin@acme.example");
}

fn headers(pairs: &[(&'static str, &str)]) -> http::HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
    pairs.iter().map(pair).collect()
}
