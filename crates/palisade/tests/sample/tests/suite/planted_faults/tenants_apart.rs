//! Operations that mix tenants where only a `PUT`, a list or a filter shows it (AUTHZ-03, AUTHZ-09).

use std::sync::Mutex;

use palisade::{authz::Permit, model::TenantId};
use palisade_test::control_suite::{access, identity, tenants};
use poem_openapi::{
    Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use sample::domain::NoteId;
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{
    DemoNotes, LISTING, REPLACING, actions, assert_found, first_note,
    operations::{AnyNote, Touched},
    start, variant,
};
use crate::support::{ACME, GLOBEX};

/// The owner's URL of the database that [`Replacing`] changes.
static OWNER: Mutex<String> = Mutex::new(String::new());

/// Replaces the notes of an id in every tenant.
struct Replacing;

#[OpenApi]
impl Replacing {
    #[oai(path = "/v1/notes/:id", method = "put", operation_id = "replaceNote")]
    async fn replace(&self, _permit: &Permit<actions::ReplaceNote>, id: Path<NoteId>) -> Touched {
        let url = OWNER.lock().unwrap().clone();
        let mut owner = PgConnection::connect(&url).await.unwrap();
        for tenant in [ACME.id, GLOBEX.id] {
            let enter = sqlx::query("select set_config('app.tenant_id', $1, false)").bind(tenant.to_string());
            enter.execute(&mut owner).await.unwrap();
            let replace = sqlx::query("update notes set remark = 'replaced' where id = $1").bind(id.0.uuid());
            replace.execute(&mut owner).await.unwrap();
        }
        Touched::Done
    }
}

#[tokio::test]
async fn authz_03_put_on_a_foreign_object_is_found() {
    let app = start(variant(&REPLACING, |_, ()| Replacing)).await;
    app.database.owner.expose_secret().clone_into(&mut OWNER.lock().unwrap());
    assert_found(
        async move { access::foreign_is_like_missing::<DemoNotes>(&app).await },
        &["PUT /v1/notes/{id} changed an object of another tenant"],
    )
    .await;
}

#[derive(Object)]
struct Listed {
    id: Uuid,
}

#[derive(Object)]
struct Page {
    items: Vec<Listed>,
}

/// Finds the first demo note of each tenant.
struct Lists {
    believes_header: bool,
    filters_by_tenant: bool,
}

#[OpenApi]
impl Lists {
    #[oai(path = "/v1/any-notes/:id", method = "get", operation_id = "getAnyNote")]
    async fn get(&self, permit: &Permit<actions::GetAnyNote>, id: Path<NoteId>) -> AnyNote {
        if id.0.uuid() == first_note(permit.tenant()) { AnyNote::Found } else { AnyNote::Missing }
    }

    #[oai(path = "/v1/any-notes", method = "get", operation_id = "listAnyNotes")]
    async fn list(
        &self,
        permit: &Permit<actions::ListAnyNotes>,
        #[oai(name = "X-Tenant-Id")] tenant: Header<Option<Uuid>>,
        priority: Query<Option<String>>,
    ) -> Json<Page> {
        let claimed = tenant.0.filter(|_| self.believes_header);
        let mut tenants = vec![claimed.map_or_else(|| permit.tenant(), TenantId::from_uuid)];
        if priority.0.is_some() && !self.filters_by_tenant {
            tenants = vec![ACME.id, GLOBEX.id];
        }
        Json(Page { items: tenants.into_iter().map(|tenant| Listed { id: first_note(tenant) }).collect() })
    }
}

#[tokio::test]
async fn authz_09_list_that_believes_a_header_is_found() {
    let app = start(variant(&LISTING, |_, ()| Lists { believes_header: true, filters_by_tenant: true })).await;
    assert_found(
        async move { identity::claims_are_ignored::<DemoNotes>(&app).await },
        &["GET /v1/any-notes believes a claim of the request about its tenant"],
    )
    .await;
}

#[tokio::test]
async fn authz_03_filter_without_the_tenant_is_found() {
    let app = start(variant(&LISTING, |_, ()| Lists { believes_header: false, filters_by_tenant: false })).await;
    assert_found(
        async move { tenants::queries_filter_tenants::<DemoNotes>(&app).await },
        &["GET /v1/any-notes returns an object of another tenant"],
    )
    .await;
}
