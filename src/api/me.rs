use poem::Result;
use poem_openapi::{Object, OpenApi, payload::Json};

use super::{
    Tag, api_enum,
    text::{Text, form},
    values::AnyScope,
};
use crate::{
    authn,
    authz::{Permit, actions::GetMe, policy},
};

pub(super) struct Me;

api_enum! {
    /// A person; a program acting for itself; or a program acting for whoever made its API key.
    CallerKind = authn::CallerKind { User, Service, ApiKey }
}
api_enum! {
    /// What somebody is in a tenant.
    Role = policy::Role { Viewer, Sales, Billing, Auditor, Admin, Service }
}

/// Who the service takes the caller for.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Me")]
struct MeView {
    /// The credential's `sub`.
    subject: Text<form::Subject>,
    /// The OAuth client that presented it.
    client_id: Text<form::Subject>,
    /// What kind of caller it is.
    kind: CallerKind,
    /// The tenant all calls are confined to.
    tenant_id: uuid::Uuid,
    /// Roles in that tenant.
    #[oai(validator(max_items = 16))]
    roles: Vec<Role>,
    /// Scopes of this API.
    #[oai(validator(max_items = 64))]
    scopes: Vec<AnyScope>,
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
            subject: principal.subject().into(),
            client_id: principal.client().into(),
            kind: principal.kind().into(),
            tenant_id: principal.tenant().uuid(),
            roles: principal.roles().iter().copied().map(Role::from).collect(),
            scopes: principal.scopes().filter_map(AnyScope::of).collect(),
        }))
    }
}
