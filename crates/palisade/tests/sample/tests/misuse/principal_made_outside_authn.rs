//! E0451: fields `kind`, `subject`, `client`, `tenant`, `roles`, `scopes`, `creator`, `token_id`, `session`, `issuer_session`, `binding`, `sign_in` and `issued_at` of struct `Principal` are private
//! A principal comes from a verified credential only.

use palisade::{authn::{CallerKind, Principal}, model::TenantId};

fn forge(tenant: TenantId) -> Principal {
    Principal {
        kind: CallerKind::User,
        subject: String::new(),
        client: String::new(),
        tenant,
        roles: Vec::new(),
        scopes: Default::default(),
        creator: None,
        token_id: None,
        session: None,
        issuer_session: None,
        binding: None,
        sign_in: Default::default(),
        issued_at: 0,
    }
}

fn main() {
    let _ = forge;
}
