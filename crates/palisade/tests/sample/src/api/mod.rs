//! The operations of the sample service, its settings, counters and background task.

mod exports;
mod items;
mod notes;
mod schema;

pub(crate) use exports::ExportKind;
pub(crate) use items::Items;
pub(crate) use notes::Notes;
use palisade::{
    http::{Constraints, LoggedParameters, text::TextFormat as _},
    problem::{Kind, Problem},
    telemetry::ServiceCounter,
};
use poem_openapi::Tags;

use crate::{domain::NoteId, formats};

/// Groups of the operations in the OpenAPI document.
#[derive(Tags)]
enum Tag {
    /// Notes of the tenant, with encrypted and masked personal fields.
    Notes,
}

palisade::settings! {
    /// Limits of notes.
    pub struct NoteLimits("notes"), "Notes" {
        max_express: i64 = "max_express".default(10_000).within(1, 100_000, "notes"),
            "Largest number of express drafts of a tenant. A further one is refused with 422, and raises the event `express_limit_exceeded`.";
    }
}

palisade::id_parameters! { NoteId }

/// Constraints whose violation is the caller's mistake.
pub(crate) const CONSTRAINTS: Constraints =
    &[("code_not_reserved", || Problem::new(Kind::Unprocessable).at("/items", "reserved"))];

/// Codes of items are no personal data.
pub(crate) const LOGGED_PARAMETERS: LoggedParameters = &[("{code}", |text| formats::Code::rules().matches(text))];

static TASKS: ServiceCounter =
    ServiceCounter::new("notes.tasks_started", "Background tasks that were started.", "task");

/// The background task: counts that it started, and never ends.
pub(crate) async fn background() {
    TASKS.increment("background");
    std::future::pending::<()>().await;
}
