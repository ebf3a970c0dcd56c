//! What the store refuses at run time: statements and objects of another transaction, states
//! without a transition, and text that was not checked (AUTHZ-04, AUTHZ-07).
//!
//! The compiler refuses other misuse (`drills/misuse.rs`). The service of this test has
//! one operation, whose handler misuses the store and returns what the store answered.

use std::{
    cell::Cell,
    collections::HashMap,
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use palisade::{
    app::App,
    authz::{ObjectRule, Permit, kept},
    db::DbError,
    http::Context,
    model::{Clock, Stateless, TenantId},
    store::{
        __macro::{CheckedText, Use},
        Insert, Loader, Lockable, Locked, ObjectPermit, Update, WriteTx,
    },
};
use poem::{EndpointExt as _, endpoint::BoxEndpoint};
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
    payload::Json,
};
use sample::{
    access::{
        ACCESS,
        actions::{ArchiveNote, EraseNote},
        roles,
    },
    demo,
    domain::{NoteId, NoteStatus},
    store::{MIGRATIONS, NoteTable, RIGHTS, StoredNote, archive},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::support::{ACME, GLOBEX, SERVICE, TestApp, TestService, query};

/// Takes the place of the operation `archiveNote`.
struct Misuse {
    context: Arc<Context>,
    /// The permit of the first request, which the handler keeps.
    foreign: Mutex<Option<Permit<ArchiveNote>>>,
}

#[OpenApi]
impl Misuse {
    /// Keeps a permit of Globex. With a permit of Acme, misuses the store.
    #[oai(path = "/v1/notes/:id/archive", method = "post", operation_id = "archiveNote")]
    async fn archive(
        &self,
        permit: &Permit<ArchiveNote>,
        id: Path<NoteId>,
        second: Query<NoteId>,
    ) -> poem::Result<Json<Value>> {
        if permit.tenant() == GLOBEX.id {
            *self.foreign.lock().unwrap() = Some(kept(permit));
            return Ok(Json(Value::Null));
        }
        let foreign = self.foreign.lock().unwrap().take().unwrap();
        let answers = self.misuse(permit, &foreign, id.0, second.0).await?;
        Ok(Json(Value::Object(answers.0)))
    }
}

impl Misuse {
    async fn misuse(
        &self,
        permit: &Permit<ArchiveNote>,
        foreign: &Permit<ArchiveNote>,
        id: NoteId,
        second: NoteId,
    ) -> Result<Answers, DbError> {
        let mut answers = Answers::default();
        let database = &self.context.database;
        let tx = database.write(permit).await?;
        let note = tx.lock::<StoredNote>(id).await?.unwrap();
        let note_permit = permit.for_object(&note)?;

        answers.add("note for the permit of another tenant", foreign.for_object(&note));
        let foreign_tx = database.write(foreign).await?;
        answers.note("another tenant finds the note", foreign_tx.lock::<StoredNote>(id).await?.is_some());
        let other = database.write(permit).await?;
        self.use_another_transaction(&other, &note, &note_permit, &mut answers).await?;
        answers.add("commit with the permit of another tenant", other.commit(foreign, id).await);

        self.skip_transitions(&tx, &note, &note_permit, second, &mut answers).await?;
        answers.add("loader that locks nothing", tx.lock::<Unlocked>(id).await);
        let changing = tx.lock::<Changing>(id).await?.unwrap();
        answers.note("permit for the id that was locked", permit.for_object(&changing)?.id() == id);

        let text = CheckedText::new(Use::Insert, "insert into notes (tenant_id) values ($1)");
        let set_tenant = sqlx::query("select set_config('app.tenant_id', '', true)");
        answers.add("text that is not the checked one", tx.insert(Insert::__new(set_tenant, text, ACME.id)).await);
        answers.note("the tenant finds the note afterwards", tx.lock::<StoredNote>(id).await?.is_some());

        let unmatched = update(ACME.id, id, Uuid::nil());
        answers.add("change of no row", tx.change(&note_permit, unmatched).await);
        answers.add("commit after a refused change", tx.commit(permit, id).await);
        Ok(answers)
    }

    /// Changes a note in another transaction than that which locked it.
    async fn use_another_transaction(
        &self,
        other: &WriteTx<'_, ArchiveNote>,
        note: &Locked<'_, StoredNote>,
        permit: &ObjectPermit<'_, ArchiveNote, StoredNote>,
        answers: &mut Answers,
    ) -> Result<(), DbError> {
        let next = note.advance(NoteStatus::Archived)?;
        let now = self.context.clock.now();
        let change = other.change(permit, update(ACME.id, note.id(), note.id().uuid())).await;
        answers.add("change in another transaction", change);
        answers.add("transition in another transaction", archive(other, permit, &next, now).await);
        answers.add("event in another transaction", other.also_record::<EraseNote, _>(permit));
        answers.add("erasure in another transaction", other.erase(permit, "", now).await);
        Ok(())
    }

    /// Changes the status of a note without a transition of that note.
    async fn skip_transitions(
        &self,
        tx: &WriteTx<'_, ArchiveNote>,
        note: &Locked<'_, StoredNote>,
        permit: &ObjectPermit<'_, ArchiveNote, StoredNote>,
        second: NoteId,
        answers: &mut Answers,
    ) -> Result<(), DbError> {
        answers.add("transition that the table lacks", note.advance(NoteStatus::Draft));
        let second = tx.lock::<StoredNote>(second).await?.unwrap();
        let next = second.advance(NoteStatus::Archived)?;
        let now = self.context.clock.now();
        answers.add("transition of another note", archive(tx, permit, &next, now).await);
        let change = tx.change(permit, update(GLOBEX.id, note.id(), note.id().uuid())).await;
        answers.add("statement for another tenant", change);
        let change = tx.change(permit, update(ACME.id, second.id(), second.id().uuid())).await;
        answers.add("change of another note", change);
        Ok(())
    }
}

/// A note whose loader locks no row.
struct Unlocked(TenantId, NoteId);

impl Lockable for Unlocked {
    type Id = NoteId;
    type State = Stateless;

    fn id(&self) -> NoteId {
        self.1
    }

    fn tenant(&self) -> TenantId {
        self.0
    }

    fn state(&self) -> Stateless {
        Stateless
    }

    async fn load(tx: &Loader<'_>, id: NoteId) -> Result<Option<Self>, DbError> {
        Ok(Some(Self(tx.tenant(), id)))
    }
}

/// A note that has another id each time it is asked.
struct Changing(TenantId, NoteId, AtomicBool);

impl Lockable for Changing {
    type Id = NoteId;
    type State = Stateless;

    fn id(&self) -> NoteId {
        if self.2.swap(true, Ordering::Relaxed) { NoteId::from_uuid(Uuid::nil()) } else { self.1 }
    }

    fn tenant(&self) -> TenantId {
        self.0
    }

    fn state(&self) -> Stateless {
        Stateless
    }

    async fn load(tx: &Loader<'_>, id: NoteId) -> Result<Option<Self>, DbError> {
        Ok(StoredNote::load(tx, id).await?.map(|_| Self(tx.tenant(), id, AtomicBool::new(false))))
    }
}

impl ObjectRule<Changing> for ArchiveNote {
    fn state_allows(_: &Changing) -> bool {
        true
    }
}

/// An `update` that sqlx did not check, for the note `id`, of the row `row`.
fn update(tenant: TenantId, id: NoteId, row: Uuid) -> Update<StoredNote> {
    const TEXT: &str = "update notes set updated_at = now() where tenant_id = $1 and id = $2";
    let query = sqlx::query(TEXT).bind(tenant.uuid()).bind(row);
    Update::__new(query, CheckedText::new(Use::Change, TEXT), (tenant, id))
}

/// What the store answered to each attempt.
#[derive(Default)]
struct Answers(Map<String, Value>);

impl Answers {
    fn add<T>(&mut self, attempt: &str, result: Result<T, DbError>) {
        let answer = match result {
            Ok(_) => "accepted".to_owned(),
            Err(DbError::Misuse(reason)) => reason.to_owned(),
            Err(error) => error.source().map_or_else(|| format!("{error:?}"), ToString::to_string),
        };
        self.note(attempt, answer);
    }

    fn note(&mut self, subject: &str, answer: impl Into<Value>) {
        self.0.insert(subject.to_owned(), answer.into());
    }
}

#[tokio::test]
async fn authz_04_store_refuses_misuse() {
    let service = App::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
        .access(&ACCESS)
        .database(&MIGRATIONS, RIGHTS)
        .demo(demo::DEMO)
        .sealed::<NoteTable>()
        .operations(|context, (): &()| Misuse { context: Arc::clone(context), foreign: Mutex::default() });
    // One connection for each open transaction.
    let app = TestService::new(service).leak().start_with(&[("APP_DATABASE__MAX_CONNECTIONS", "4")]).await;
    let first = demo::FIRST_NOTE;
    let others = format!("select id::text from notes where status = 'draft' and id <> '{first}'");
    let others = query(&app.database.reader, &others).await;
    let path = format!("/v1/notes/{first}/archive?second={}", others[0]);
    app.user_of(&GLOBEX, roles::WRITER, app.rights.scopes).post(&path, &Value::Null).await.ok(200);
    let answers = app.user(roles::WRITER).post(&path, &Value::Null).await.ok(200);
    let other_transaction = "the object belongs to another transaction";
    let refused_before = "the permit is for another tenant, or a change was refused before";
    let expected = json!({
        "note for the permit of another tenant": "OtherTenant",
        "another tenant finds the note": false,
        "change in another transaction": other_transaction,
        "transition in another transaction": other_transaction,
        "event in another transaction": other_transaction,
        "erasure in another transaction": other_transaction,
        "commit with the permit of another tenant": refused_before,
        "transition that the table lacks": "State",
        "transition of another note": "the transition is of another object",
        "statement for another tenant": "the statement is for another tenant",
        "change of another note": "the statement is for another object",
        "loader that locks nothing": "the loader locked no row",
        "permit for the id that was locked": true,
        "text that is not the checked one": "error with configuration: the text of the statement is not the checked one",
        "the tenant finds the note afterwards": true,
        "change of no row": "Inconsistent",
        "commit after a refused change": refused_before,
    });
    assert_eq!(answers, expected);
}

/// Routes that no metadata declares, as code that evades `#[OpenApi]` adds them.
struct Undeclared;

impl OpenApi for Undeclared {
    fn meta() -> Vec<poem_openapi::registry::MetaApi> {
        Vec::new()
    }

    fn register(_: &mut poem_openapi::registry::Registry) {}

    fn add_routes(self, routes: &mut HashMap<String, HashMap<http::Method, BoxEndpoint<'static>>>) {
        let endpoint = poem::endpoint::make_sync(|_| poem::Response::default());
        routes.entry("/v1/api-keys".to_owned()).or_default().insert(http::Method::POST, endpoint.boxed());
    }
}

#[tokio::test]
async fn authz_04_service_cannot_replace_a_handler_of_the_kernel() {
    let app: App = App::new("replacing", "0.0.0").access(&ACCESS).sealed::<NoteTable>().operations(|_, ()| Undeclared);
    let variables = TestApp::variables(&SERVICE.database().await, "http://127.0.0.1:9");
    let settings = app.read_settings(variables).unwrap();
    let error = palisade::app::start(&app, settings, Clock::system()).await.unwrap_err().to_string();
    assert!(error.contains("createApiKey") && error.contains("does not declare"), "{error}");
}

/// Names a tenant of its own at each call.
#[derive(Default)]
struct ChangingTenant(Cell<u128>);

impl ChangingTenant {
    fn tenant(&self) -> TenantId {
        self.0.set(self.0.get() + 1);
        TenantId::from_uuid(Uuid::from_u128(self.0.get()))
    }
}

#[expect(dead_code, reason = "no row is read")]
struct CountRow {
    count: i64,
}

/// With a second look, a statement could bind another tenant than the one that the store compares.
#[test]
fn authz_07_statement_looks_its_tenant_up_once() {
    let source = ChangingTenant::default();
    // The text of `sample::store::count_with_item`.
    let statement = palisade::read_one!(
        source,
        CountRow,
        r#"select count(*) as "count!" from notes
           where tenant_id = t.tenant and erased_at is null
             and items @> jsonb_build_array(jsonb_build_object('code', $2::text))"#,
        "PAPER-A4"
    );
    drop(statement);
    assert_eq!(source.0.get(), 1);
}
