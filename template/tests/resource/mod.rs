//! A resource as a team adds it by the recipe of CONTRIBUTING.md, "Add a resource": shelves, with
//! a table, a type, an action, a statement, an operation and a test.

use std::path::Path;

use crate::support::{edit, write};

/// A row of the route matrix.
const ACTION: &str = "    /// List shelves.
    Read ListShelves = Get \"/v1/shelves\" as \"listShelves\" {
        Authenticated, scope Some(CATALOG_READ), permission Some(READ_CATALOG), quota Read,
        data Tenant, audit \"shelves_listed\", outage Closed, read_only Served,
    }
";

/// Adds the resource. `.ci/regenerate` does the rest.
pub(crate) fn add(project: &Path) {
    for (path, text) in [
        ("migrations/0101_shelves.sql", include_str!("shelves.sql")),
        ("src/domain/shelf.rs", include_str!("domain.rs")),
        ("src/store/shelves.rs", include_str!("store.rs")),
        ("src/api/shelves.rs", include_str!("api.rs")),
        ("tests/suite/shelves.rs", include_str!("test.rs")),
    ] {
        write(project, path, text);
    }
    for (path, before, added) in [
        ("src/domain/mod.rs", "mod product;\n", "mod shelf;\n"),
        ("src/domain/mod.rs", "pub use product::{Product, Sku};\n", "pub use shelf::Shelf;\n"),
        ("src/store/mod.rs", "pub mod products;\n", "pub mod shelves;\n"),
        ("src/api/mod.rs", "mod settings;\n", "mod shelves;\n"),
        ("src/api/mod.rs", "pub(crate) use settings::OrderLimits;\n", "pub(crate) use shelves::Shelves;\n"),
        (
            "src/lib.rs",
            "api::Products { context: Arc::clone(context) },\n",
            "                api::Shelves { context: Arc::clone(context) },\n",
        ),
        ("src/access/actions.rs", "    pub static ORDERS;\n\n", ACTION),
        ("tests/suite/main.rs", "mod settings;\n", "mod shelves;\n"),
    ] {
        edit(project, path, before, &format!("{before}{added}"));
    }
}
