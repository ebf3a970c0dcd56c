use poem::Result;
use poem_openapi::{Object, OpenApi, payload::Json};

use super::Tag;
use crate::authz::{Permit, actions::GetMe, matrix::Scope, policy::Role};

pub(super) struct Me;

/// Who the service takes the caller for.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Me")]
struct MeView {
    /// The credential's `sub`.
    #[oai(validator(max_length = 255))]
    subject: String,
    /// The OAuth client that presented it.
    #[oai(validator(max_length = 255))]
    client_id: String,
    /// `user`, `service` or `apiKey`.
    #[oai(validator(max_length = 16))]
    kind: String,
    /// The tenant all calls are confined to.
    tenant_id: uuid::Uuid,
    /// Roles in that tenant.
    #[oai(validator(max_items = 16))]
    roles: Vec<String>,
    /// Scopes of this API.
    #[oai(validator(max_items = 64))]
    scopes: Vec<String>,
}

#[OpenApi(tag = "Tag::Identity")]
impl Me {
    /// Who am I
    ///
    /// Who the credential says the caller is, and what it may do.
    #[oai(path = "/v1/me", method = "get", operation_id = "getMe")]
    async fn get(&self, permit: Permit<GetMe>) -> Result<Json<MeView>> {
        let principal = permit.principal();
        Ok(Json(MeView {
            subject: principal.subject().to_owned(),
            client_id: principal.client().to_owned(),
            kind: principal.kind().as_str().to_owned(),
            tenant_id: principal.tenant().uuid(),
            roles: principal.roles().iter().copied().map(Role::as_str).map(str::to_owned).collect(),
            scopes: principal.scopes().map(Scope::as_str).map(str::to_owned).collect(),
        }))
    }
}
