//! Rotation of a sealed table that only this test knows (CRYPTO-05): the kernel needs its list of
//! columns, and no code of a service.

use palisade::{
    app::DemoKeys,
    crypto::Sealed,
    dev,
    model::Clock,
    store::{self, RegisteredTable, SealedTable, maintenance::ResealPosition},
};
use secrecy::ExposeSecret as _;
use service::store::customers::CustomerTable;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::{
    database::start_error_after,
    support::{ACME, SERVICE, TestApp, TestService, run},
};

palisade::personal_data! {
    /// Any text.
    Body, |text| Some(text.to_owned());
    /// Any text.
    Remark, |text| Some(text.to_owned());
}

palisade::sealed_table! {
    /// A table without blind index.
    Notes = "notes";
    Body in "body";
    Remark in "remark";
}

const CREATE: &str = "
    create table notes (tenant_id uuid, id uuid, body palisade.sealed, remark palisade.sealed,
                        primary key (tenant_id, id));
    select palisade.isolate_tenants('notes');
    grant select, update on notes to app_writer;
    create trigger delete_row_key after delete on notes for each row execute function palisade.delete_row_key()";

#[tokio::test]
async fn crypto_05_rotation_covers_every_registered_table() {
    const NOTES: i32 = 60;
    let urls = SERVICE.database().await;
    run(&urls.owner, CREATE).await.unwrap();
    let keys = DemoKeys { master: urls.master_keys.clone(), index: urls.index_keys.clone() };
    let mut owner = PgConnection::connect(urls.owner.expose_secret()).await.unwrap();
    sqlx::query("select set_config('app.tenant_id', $1, false)")
        .bind(ACME.id.to_string())
        .execute(&mut owner)
        .await
        .unwrap();
    let old = dev::data_key(&mut owner, &keys, ACME.id).await.unwrap();
    for _ in 0..NOTES {
        let key = old.new_row_key(Notes::TABLE, Uuid::now_v7()).unwrap();
        let body: Body = "the text of a note".parse().unwrap();
        sqlx::query(
            "with n as (insert into notes values ($1, $2, $3))
             insert into palisade.row_keys values ($1, 'notes', $2, $4, $5, null)",
        )
        .bind(ACME.id.uuid())
        .bind(key.row())
        .bind(Sealed::new(&body, &key).unwrap().bytes())
        .bind(key.data_key_version())
        .bind(key.wrapped())
        .execute(&mut owner)
        .await
        .unwrap();
    }

    let settings = service::app().read_settings(TestApp::variables(&urls, "http://127.0.0.1:9")).unwrap();
    let tables = [RegisteredTable::of::<CustomerTable>(), RegisteredTable::of::<Notes>()];
    let (_, maintenance) = store::maintenance::open(&settings, &tables, Clock::system()).unwrap();
    let newest = maintenance.add_data_key(ACME.id).await.unwrap();
    let mut resealed = Vec::new();
    // The second pass finds nothing: a table without blind index has no index key.
    for _ in 0..2 {
        let mut next = Some(ResealPosition::default());
        while let Some(position) = next {
            let batch = maintenance.reseal_batch(ACME.id, position).await.unwrap();
            assert_eq!(batch.unreadable, 0);
            resealed.push(batch.resealed);
            next = batch.next;
        }
    }
    // Three demo customers; then notes, in two batches.
    assert_eq!(resealed, [3, 50, 10, 0, 0]);

    let new = dev::data_key(&mut owner, &keys, ACME.id).await.unwrap();
    assert_eq!(new.version(), newest);
    let rows: Vec<(Uuid, i32, Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "select id, data_key, wrapped, body from notes join palisade.row_keys on row_id = id
         where sealed_table = 'notes' and remark is null and index_key is null",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert_eq!(rows.len(), usize::try_from(NOTES).unwrap());
    for (id, data_key, wrapped, body) in rows {
        let key = new.unwrap_row_key(Notes::TABLE, id, wrapped).unwrap();
        let body = Sealed::<Body>::from_stored(body).masked(&key).unwrap();
        assert_eq!((data_key, &*body), (newest, "****note"));
    }
}

/// Otherwise a key rotation would lose the column, and an erasure leave it.
#[tokio::test]
async fn crypto_05_sealed_column_that_is_not_registered_prevents_startup() {
    for (change, expected) in [
        ("alter table customers add fax palisade.sealed", "customers.fax (sealed) is not registered"),
        (
            "alter table customers add fax_index palisade.blind_index",
            "customers.fax_index (blind_index) is not registered",
        ),
        (
            "create table notes (id uuid); create trigger delete_row_key after delete on notes
                 for each row execute function palisade.delete_row_key()",
            "notes (delete_row_key) is not registered",
        ),
    ] {
        let error = start_error_after(change).await;
        assert!(error.contains(expected), "{change}: {error}");
    }
}

#[tokio::test]
async fn crypto_05_registered_column_that_is_not_sealed_prevents_startup() {
    let urls = SERVICE.database().await;
    run(&urls.owner, "create table notes (id uuid, body bytea, remark palisade.blind_index)").await.unwrap();
    let service = TestService::new(service::app().sealed::<Notes>());
    let error = service.try_start(TestApp::variables(&urls, "http://127.0.0.1:9")).await.unwrap_err();
    for expected in [
        "notes.remark (blind_index) is not registered",
        "notes (delete_row_key) is missing",
        "notes.body (sealed) is missing",
        "notes.remark (sealed) is missing",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
