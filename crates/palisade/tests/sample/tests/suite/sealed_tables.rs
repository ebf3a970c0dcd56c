//! Rotation of a sealed table that only this test knows (CRYPTO-05): the kernel needs its list of
//! columns, and no code of a service.

use palisade::{
    app::DemoKeys,
    crypto::Sealed,
    dev,
    model::Clock,
    store::{self, RegisteredTable, SealedTable, maintenance::ResealPosition},
};
use sample::store::NoteTable;
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::support::{ACME, SERVICE, TestApp, TestService, run, start_error_after};

palisade::personal_data! {
    /// Any text.
    Body, |text| Some(text.to_owned());
    /// Any text.
    Remark, |text| Some(text.to_owned());
}

palisade::sealed_table! {
    /// A table without blind index.
    Letters = "letters";
    Body in "body";
    Remark in "remark";
}

const CREATE: &str = "
    create table letters (tenant_id uuid, id uuid, body palisade.sealed, remark palisade.sealed,
                        primary key (tenant_id, id));
    select palisade.isolate_tenants('letters');
    grant select, update on letters to app_writer;
    create trigger delete_row_key after delete on letters for each row execute function palisade.delete_row_key()";

#[tokio::test]
async fn crypto_05_rotation_covers_every_registered_table() {
    const LETTERS: i32 = 60;
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
    for _ in 0..LETTERS {
        let key = old.new_row_key(Letters::TABLE, Uuid::now_v7()).unwrap();
        let body: Body = "the text of a letter".parse().unwrap();
        sqlx::query(
            "with n as (insert into letters values ($1, $2, $3))
             insert into palisade.row_keys values ($1, 'letters', $2, $4, $5, null)",
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

    let settings = sample::app().read_settings(TestApp::variables(&urls, "http://127.0.0.1:9")).unwrap();
    let tables = [RegisteredTable::of::<NoteTable>(), RegisteredTable::of::<Letters>()];
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
    // Three demo notes; then letters, in two batches.
    assert_eq!(resealed, [3, 50, 10, 0, 0]);

    let new = dev::data_key(&mut owner, &keys, ACME.id).await.unwrap();
    assert_eq!(new.version(), newest);
    let rows: Vec<(Uuid, i32, Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "select id, data_key, wrapped, body from letters join palisade.row_keys on row_id = id
         where sealed_table = 'letters' and remark is null and index_key is null",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert_eq!(rows.len(), usize::try_from(LETTERS).unwrap());
    for (id, data_key, wrapped, body) in rows {
        let key = new.unwrap_row_key(Letters::TABLE, id, wrapped).unwrap();
        let body = Sealed::<Body>::from_stored(body).masked(&key).unwrap();
        assert_eq!((data_key, &*body), (newest, "****tter"));
    }
}

/// Otherwise a key rotation would lose the column, and an erasure leave it.
#[tokio::test]
async fn crypto_05_sealed_column_that_is_not_registered_prevents_startup() {
    for (change, expected) in [
        ("alter table notes add fax palisade.sealed", "notes.fax (sealed) is not registered"),
        ("alter table notes add fax_index palisade.blind_index", "notes.fax_index (blind_index) is not registered"),
        (
            "create table letters (id uuid); create trigger delete_row_key after delete on letters
                 for each row execute function palisade.delete_row_key()",
            "letters (delete_row_key) is not registered",
        ),
    ] {
        let error = start_error_after(change).await;
        assert!(error.contains(expected), "{change}: {error}");
    }
}

#[tokio::test]
async fn crypto_05_registered_column_that_is_not_sealed_prevents_startup() {
    let urls = SERVICE.database().await;
    run(&urls.owner, "create table letters (id uuid, body bytea, remark palisade.blind_index)").await.unwrap();
    let service = TestService::new(sample::app().sealed::<Letters>());
    let error = service.try_start(TestApp::variables(&urls, "http://127.0.0.1:9")).await.unwrap_err();
    for expected in [
        "letters.remark (blind_index) is not registered",
        "letters (delete_row_key) is missing",
        "letters.body (sealed) is missing",
        "letters.remark (sealed) is missing",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
