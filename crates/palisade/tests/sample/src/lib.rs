//! The sample service: the smallest service that uses each part of the kernel once.
//!
//! The kernel's own tests run it. It depends on the kernel without `internals`, so that compiling it
//! proves that the public API of the kernel is enough for a service.

pub mod access;
pub mod api;
#[cfg(feature = "dev")]
pub mod demo;
pub mod domain;
mod formats;
pub mod store;

use std::sync::Arc;

use palisade::{App, operations::Exports};

/// The service.
pub fn app() -> App<api::NoteLimits> {
    let app = App::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
        .title("Notes", "Multi-tenant API for notes.")
        .access(&access::ACCESS)
        .database(&store::MIGRATIONS, store::RIGHTS)
        .sealed::<store::NoteTable>()
        .operations(|context, limits: &api::NoteLimits| {
            (
                api::Notes { context: Arc::clone(context), limits: limits.clone() },
                api::Items { context: Arc::clone(context) },
                Exports::<api::ExportKind>::new(context),
            )
        })
        .constraints(api::CONSTRAINTS)
        .logged_parameters(api::LOGGED_PARAMETERS)
        .task(|_context, _limits| api::background());
    #[cfg(feature = "dev")]
    let app = app.demo(demo::DEMO);
    app
}
