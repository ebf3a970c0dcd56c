//! `GET /v1/me`: the caller as the service authenticated it.
//!
//! The response shows the principal of the permit (AUTHZ-09); there is no database access.

use poem::Result;
use poem_openapi::{Object, OpenApi, payload::Json};

use super::Tag;
use crate::{
    authn,
    authz::{Permit, actions::GetMe},
    http::{
        text::{Text, formats},
        values::{RoleName, ScopeName},
    },
};

pub(super) struct Me;

crate::api_enum! {
    /// Kind of caller: `user` (a person, through an OAuth client), `service` (a program acting for
    /// itself) or `apiKey` (a program acting for the creator of its API key).
    CallerKind = authn::CallerKind { User, Service, ApiKey }
}

/// The authenticated caller.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Me")]
struct MeView {
    /// Subject: `sub` of the access token, `issuer:<name>:<sub>` if a further issuer signed it,
    /// `api-key:<id>` or `service:<name>`.
    subject: Text<formats::Subject>,
    /// OAuth client that presented the token. For API keys and client certificates: the `subject`.
    client_id: Text<formats::Subject>,
    /// Actor that uses the token for its subject (RFC 8693 section 4.1). Absent if the subject itself
    /// calls.
    #[oai(skip_serializing_if_is_none)]
    actor: Option<Text<formats::Subject>>,
    /// Kind of caller.
    kind: CallerKind,
    /// Tenant of the caller (UUID). All calls are confined to it.
    tenant_id: uuid::Uuid,
    /// Roles of the caller in the tenant, at most 16. An API key has the roles of its creator.
    #[oai(validator(max_items = 16))]
    roles: Vec<RoleName>,
    /// Scopes of this API that the credential carries, at most 64.
    #[oai(validator(max_items = 64))]
    scopes: Vec<ScopeName>,
}

#[OpenApi(tag = "Tag::Identity")]
impl Me {
    /// Get the caller
    ///
    /// Returns the caller's subject, client, tenant, roles and scopes. Any valid credential may
    /// call this operation; it needs no scope.
    #[oai(path = "/v1/me", method = "get", operation_id = "getMe")]
    async fn get(&self, permit: &Permit<GetMe>) -> Result<Json<MeView>> {
        let principal = permit.principal();
        Ok(Json(MeView {
            subject: principal.subject().into(),
            client_id: principal.client().into(),
            actor: principal.actor().map(Into::into),
            kind: principal.kind().into(),
            tenant_id: principal.tenant().uuid(),
            roles: principal.roles().iter().map(|role| RoleName(role.as_str().to_owned())).collect(),
            scopes: principal.scopes().map(|scope| ScopeName(scope.as_str().to_owned())).collect(),
        }))
    }
}
