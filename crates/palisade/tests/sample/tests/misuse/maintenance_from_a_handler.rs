//! E0599: no method named `reseal_batch` found for struct `palisade::store::Database`
//! Handlers hold a `Database`, which has no maintenance operations.

use palisade::{http::Context, model::TenantId, store::Position};

async fn handle(context: &Context, tenant: TenantId) {
    let _ = context.database.reseal_batch(tenant, Position::start()).await;
}

fn main() {
    let _ = handle;
}
