//! Rotation of index keys while the service runs (CRYPTO-06): notes stay findable during it.

use std::sync::Arc;

use http::Method;
use palisade::{
    app::App,
    authz::Permit,
    http::Context,
    ops::{Keys, ResealOptions},
    store::{
        __macro::{CheckedText, Use},
        ReadTx, Select,
    },
};
use poem_openapi::{OpenApi, param::Path, payload::Json};
use sample::{
    access::{ACCESS, actions::ArchiveNote, roles},
    demo,
    domain::{NoteId, NoteStatus},
    store::{NoteTable, StoredNote, archive},
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::support::{
    ACME, DATA_KEY, INDEX_KEY, SERVICE, SHORT_TIMEOUTS, TestService, add_notes, assert_notes_readable, copy_notes,
    during_transaction, id_of, keyset, note, notes_by_key, run_as_superuser, run_keys, run_keys_binary_with, search,
    start_error,
};

#[tokio::test]
async fn crypto_06_search_works_during_an_index_key_rotation() {
    let app = SERVICE.start().await;
    let paths = add_notes(&app, 60).await;
    let old = app.database.index_keys.expose_secret();
    let new = keyset(2);
    let both = format!("{new},{old}");
    let replica = SERVICE.start_on(app.database.clone(), &[("APP_KEYS__INDEX", &both)]).await;
    assert_notes_readable(&replica, &paths).await;
    let added = replica.user(roles::WRITER).post("/v1/notes", &note(1)).await.ok(201);
    let found = search(&replica.user(roles::ADMIN), "person-1@example.com").await;
    assert_eq!(found[0]["id"], added["id"], "the newest first, under either key");
    assert_eq!(found.len(), 2);
    let status = async || run_keys(&app, Keys::Status, &[("APP_KEYS__INDEX", &both)]).await.unwrap().join("\n");
    let uses = |version: u16, notes: usize| format!("{}: index key {version}: {notes} records", ACME.id);
    let before = status().await;
    assert!(before.contains(&uses(1, 63)) && before.contains(&uses(2, 1)), "{before}");
    // A change of the indexed field computes its index with the new key.
    let newest = json!({ "email": "newest@example.com" });
    for path in &paths[58..] {
        let admin = replica.user(roles::ADMIN);
        admin.send(admin.request(Method::PATCH, path).json(&newest)).await.ok(200);
    }
    let forget = async |version| run_keys_binary_with(&app, &["forget-index", version], Some(&both)).await;
    // The command waits for a transaction that is storing a note, and refuses even if that
    // rolls back: others are indexed with the key.
    let refused = during_transaction(&app.database, &copy_notes(1), "rollback", forget("1")).await.unwrap_err();
    assert!(refused.contains("records are indexed with it; run `keys reseal`"), "{refused}");
    run_keys(&app, Keys::Reseal { options: ResealOptions::new(None) }, &[("APP_KEYS__INDEX", &both)]).await.unwrap();
    let after = status().await;
    assert!(after.contains(&uses(2, 64)) && after.contains(&uses(1, 0)), "{after}");
    assert_eq!(notes_by_key(&app, INDEX_KEY).await, ["2: 64"]);
    // A key that rows may use must be in the settings: first forget it, then remove it from them.
    assert!(start_error(&app, &[("APP_KEYS__INDEX", &new)]).await.contains("index key 1"));
    assert!(forget("2").await.unwrap_err().contains("new records get it"));
    forget("1").await.unwrap();
    let last = SERVICE.start_on(app.database.clone(), &[("APP_KEYS__INDEX", &new)]).await;
    assert_eq!(search(&last.user(roles::ADMIN), "person-1@example.com").await.len(), 2);
}

/// A replica whose settings have the new index key, but not first, still writes entries with the
/// old.
#[tokio::test]
async fn crypto_05_stale_index_key_on_a_replica_does_not_block_rotation() {
    let app = SERVICE.start().await;
    let paths = add_notes(&app, 2).await;
    let both = format!("{},{}", keyset(2), app.database.index_keys.expose_secret());
    // Triggers keep the old index entries and their index key.
    let keep_entries = "create schema slow; grant usage on schema slow to app_writer;
                  create function slow.index() returns trigger language plpgsql as $$ begin
                      new.email_index := old.email_index;
                      return new;
                  end $$;
                  create trigger a_slow before update on notes for each row execute function slow.index();
                  create function slow.index_key() returns trigger language plpgsql as $$ begin
                      new.index_key := old.index_key;
                      return new;
                  end $$;
                  create trigger a_slow before update on palisade.row_keys
                      for each row execute function slow.index_key()";
    run_as_superuser(&app, keep_entries.to_owned()).await;
    let changes = [&SHORT_TIMEOUTS[..], &[("APP_KEYS__INDEX", &both)]].concat();
    run_keys(&app, Keys::Rotate { options: ResealOptions::new(None) }, &changes).await.unwrap();
    assert_eq!(notes_by_key(&app, DATA_KEY).await, ["2: 5"]);
    assert_eq!(notes_by_key(&app, INDEX_KEY).await, ["1: 5"]);
    assert_notes_readable(&app, &paths).await;
}

/// The rows that need work are found among thousands that need none.
#[tokio::test]
async fn crypto_05_reseal_finds_outdated_notes_among_many() {
    let app = SERVICE.start().await;
    let paths = add_notes(&app, 10).await;
    let both = format!("{},{}", keyset(2), app.database.index_keys.expose_secret());
    let index_keys = [("APP_KEYS__INDEX", both.as_str())];
    SERVICE.start_on(app.database.clone(), &index_keys).await;
    let many = format!(
        "create temp table outdated as select row_id from palisade.row_keys; {};
         update palisade.row_keys set index_key = 2 where row_id not in (select row_id from outdated)",
        copy_notes(5_000)
    );
    run_as_superuser(&app, many).await;
    let options = ResealOptions::new(Some(ACME.id.uuid()));
    let output = run_keys(&app, Keys::Reseal { options }, &index_keys).await.unwrap();
    assert_eq!(output, [format!("{}: done, 13 records re-encrypted", ACME.id)]);
    let last = format!("update palisade.row_keys set index_key = 1 where row_id = '{}'", id_of(&paths[9]));
    run_as_superuser(&app, last).await;
    let output = run_keys(&app, Keys::Reseal { options }, &index_keys).await.unwrap();
    assert_eq!(output, [format!("{}: done, 1 records re-encrypted", ACME.id)]);
}

/// Takes the place of the operation `archiveNote`: archives a note between two statements of a
/// reading transaction, and returns the states that these found.
struct ChangeDuringRead(Arc<Context>);

#[OpenApi]
impl ChangeDuringRead {
    /// Archives a note, and reads its state before and after.
    #[oai(path = "/v1/notes/:id/archive", method = "post", operation_id = "archiveNote")]
    async fn archive(&self, permit: &Permit<ArchiveNote>, id: Path<NoteId>) -> poem::Result<Json<Value>> {
        let read = self.0.database.read(permit).await?;
        let before = states(&read, id.0).await;
        let tx = self.0.database.write(permit).await?;
        let note = tx.lock::<StoredNote>(id.0).await?.unwrap();
        let next = note.advance(NoteStatus::Archived)?;
        archive(&tx, &permit.for_object(&note)?, &next, self.0.clock.now()).await?;
        tx.commit(permit, id.0).await?;
        Ok(Json(json!([before, states(&read, id.0).await])))
    }
}

/// The state of the note, by a statement that sqlx did not check.
async fn states(tx: &ReadTx<'_, ArchiveNote>, id: NoteId) -> Vec<String> {
    const TEXT: &str = "select status from notes where tenant_id = $1 and id = $2";
    let query = sqlx::query(TEXT).bind(ACME.id.uuid()).bind(id.uuid());
    let query = query.try_map(|row: sqlx::postgres::PgRow| row.try_get(0));
    tx.fetch_all(Select::__new(query, CheckedText::new(Use::Select, TEXT), ACME.id)).await.unwrap()
}

/// A search takes one statement for each index key. A rotation may move a row from one to the other
/// in between.
#[tokio::test]
async fn crypto_06_all_statements_of_a_search_see_one_snapshot() {
    let service = App::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
        .access(&ACCESS)
        .sealed::<NoteTable>()
        .operations(|context, (): &()| ChangeDuringRead(Arc::clone(context)));
    let app = TestService::new(service).leak().start_on(SERVICE.database().await, &[]).await;
    let path = format!("/v1/notes/{}/archive", demo::FIRST_NOTE);
    let found = app.user(roles::WRITER).post(&path, &Value::Null).await.ok(200);
    assert_eq!(found, json!([["draft"], ["draft"]]));
}
