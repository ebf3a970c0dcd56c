//! E0451: fields `kind`, `subject`, `client`, `tenant`, `roles` and `scopes` of struct `Principal` are private
use service::{
    authn::{CallerKind, Principal},
    domain::TenantId,
};

fn forge(tenant: TenantId) -> Principal {
    Principal {
        kind: CallerKind::User,
        subject: String::new(),
        client: String::new(),
        tenant,
        roles: Vec::new(),
        scopes: Default::default(),
    }
}

fn main() {
    let _ = forge;
}
