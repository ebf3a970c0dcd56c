//! What the store refuses at run time: statements and objects of another transaction, states
//! without a transition, and text that was not checked (AUTHZ-04, AUTHZ-07).

#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails")]

use std::path::Path;

use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, PgConnection};

use super::{
    __macro::{CheckedText, Use},
    Database, Insert, Loader, Lockable, Update, open, orders,
};
use crate::{
    access::actions::CancelOrder,
    authz::{Permit, test_permit},
    db::DbError,
    demo,
    dev::{
        self,
        database::Cluster,
        people::TENANTS,
        postgres::{Binaries, Data, Server},
    },
    domain::{Order, OrderId, OrderStatus},
    model::{Clock, Stateless, TenantId},
    service::app,
};

/// An order whose loader locks no row.
struct Unlocked(TenantId, OrderId);

impl Lockable for Unlocked {
    type Id = OrderId;
    type State = Stateless;

    fn id(&self) -> OrderId {
        self.1
    }

    fn tenant(&self) -> TenantId {
        self.0
    }

    fn state(&self) -> Stateless {
        Stateless
    }

    async fn load(tx: &Loader<'_>, id: OrderId) -> Result<Option<Self>, DbError> {
        Ok(Some(Self(tx.tenant(), id)))
    }
}

async fn start() -> (Server, Database) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/store-tests");
    let binaries = Binaries::find_or_fetch(&folder.join("binaries"), |_| {}).await.unwrap();
    let server = Server::start(&folder.join("data"), &binaries, Data::Disposable).await.unwrap();
    let cluster = Cluster::new(server.url()).unwrap();
    let urls = cluster.provision("store").await.unwrap();
    let mut owner = PgConnection::connect(urls.owner.expose_secret()).await.unwrap();
    dev::seed(&demo::DEMO, &mut owner, &urls).await.unwrap();
    let mut variables = urls.variables();
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    for (name, value) in [
        ("APP_PROFILE", "development"),
        ("APP_OIDC__ISSUER", "http://127.0.0.1:1"),
        ("APP_OIDC__AUDIENCE", "api://orders"),
        ("APP_SECRETS__MAC_KEY", key),
        ("APP_SECRETS__PEPPER", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="),
    ] {
        variables.insert(name.to_owned(), value.to_owned());
    }
    let settings = app().read_settings(variables).unwrap();
    let (database, _) = open(&settings, Clock::system()).unwrap();
    (server, database)
}

/// A fault unless the store refuses with this reason.
fn refused<T>(result: &Result<T, DbError>, reason: &'static str) -> Result<(), &'static str> {
    match result {
        Err(DbError::Misuse(found)) if *found == reason => Ok(()),
        _ => Err(reason),
    }
}

/// An `update` that sqlx did not check, for the tenant of the permit.
fn update(text: &'static str, tenant: TenantId, id: OrderId) -> Update {
    Update::__new(sqlx::query(text).bind(tenant.uuid()).bind(id.uuid()), CheckedText::new(Use::Change, text), tenant)
}

#[tokio::test]
async fn authz_04_store_refuses_misuse() {
    let (_server, database) = start().await;
    let [acme, globex] = TENANTS.map(|tenant| tenant.id);
    let now = Clock::system().now();
    let id = OrderId::from_uuid(demo::FIRST_ORDER);
    let permit: Permit<CancelOrder> = test_permit(acme);
    let tx = database.write(&permit).await.unwrap();
    let order = tx.lock::<Order>(id).await.unwrap().unwrap();
    let order_permit = permit.for_object(&order).unwrap();
    let next = order.advance(OrderStatus::Cancelled).unwrap();
    assert!(matches!(order.advance(OrderStatus::Fulfilled), Err(DbError::State)));

    let mut results = Vec::new();

    // A permit of another tenant, and another open transaction.
    let foreign_permit: Permit<CancelOrder> = test_permit(globex);
    assert!(matches!(foreign_permit.for_object(&order), Err(DbError::OtherTenant)));
    let foreign = database.write(&foreign_permit).await.unwrap();
    assert!(foreign.lock::<Order>(id).await.unwrap().is_none());
    let other = database.write(&permit).await.unwrap();
    let reason = "the object belongs to another transaction";
    results.push(refused(&orders::set_status(&other, &order_permit, &next, now).await, reason));
    results.push(refused(&other.also_record(&order_permit, "invoice_voided"), reason));
    results.push(refused(&other.erase_responses(&order_permit, "").await, reason));
    let touch = "update orders set updated_at = now() where tenant_id = $1 and id = $2";
    results.push(refused(&other.change(&order_permit, update(touch, acme, id)).await, reason));
    let reason = "the statement is for another tenant";
    results.push(refused(&tx.change(&order_permit, update(touch, globex, id)).await, reason));

    // A state without a transition, and the transition of another object.
    let reason = "a state changes by a transition only";
    let cancel = "update orders set status = 'cancelled' where tenant_id = $1 and id = $2";
    results.push(refused(&tx.change(&order_permit, update(cancel, acme, id)).await, reason));
    results.push(refused(&tx.change_related(&order_permit, update(cancel, acme, id)).await, reason));
    let ids = sqlx::query_scalar("select id from orders where status = 'placed' and id <> $1").bind(id.uuid());
    let second: uuid::Uuid = ids.fetch_one(&mut *tx.open.connection().await).await.unwrap();
    let second = tx.lock::<Order>(OrderId::from_uuid(second)).await.unwrap().unwrap();
    let next_of_second = second.advance(OrderStatus::Cancelled).unwrap();
    let reason = "the transition is of another object";
    results.push(refused(&orders::set_status(&tx, &order_permit, &next_of_second, now).await, reason));

    // Loaders that lock nothing or load something else.
    results.push(refused(&tx.lock::<Unlocked>(id).await, "the loader locked no row"));

    // Text that is not the checked one.
    let forged = Insert::__new(
        sqlx::query("select set_config('app.tenant_id', '', true)"),
        CheckedText::new(Use::Insert, "insert into orders (tenant_id) values ($1)"),
        acme,
    );
    assert!(matches!(tx.insert(forged).await, Err(DbError::Broken(_))));
    let tenant = sqlx::query_scalar("select current_setting('app.tenant_id')");
    let tenant: String = tenant.fetch_one(&mut *tx.open.connection().await).await.unwrap();
    assert_eq!(tenant, acme.to_string());

    // A change that does not change exactly one row must not be committed.
    let none = "update orders set updated_at = now() where tenant_id = $1 and id = $2 and false";
    assert!(matches!(tx.change(&order_permit, update(none, acme, id)).await, Err(DbError::Inconsistent)));
    let reason = "the permit is for another tenant, or a change was refused before";
    results.push(refused(&tx.commit(&permit, id).await, reason));
    results.push(refused(&other.commit(&foreign_permit, id).await, reason));

    let faults: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(faults.is_empty(), "not refused: {faults:#?}");
}
