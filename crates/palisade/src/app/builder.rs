//! What a service adds to the kernel: the one value that its `app()` returns.
//!
//! The command line runs it ([`crate::cli::run`]), and tests start it ([`super::start`]).

use std::{collections::BTreeMap, fmt, pin::Pin, sync::Arc};

use poem_openapi::OpenApi;
use sqlx::migrate::Migrator;

use crate::{
    authz::{Access, Matrix, MatrixError, Rights, RoleTable},
    http::{Constraints, Context, LoggedParameters},
    operations::{Api, Document, Title},
    package,
    settings::{self, Faults, ServiceSections, ServiceSettings, Settings},
    store::{RegisteredTable, SealedTable},
};

#[cfg(feature = "dev")]
use super::Demo;

/// No operation, scope or role besides those of the kernel.
static NO_ACCESS: Access = Access { actions: &[], rights: Rights { scopes: &[], roles: RoleTable(&[]) } };

type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A background task, made for each server from its context and the settings of the service.
type MakeTask<S> = Box<dyn Fn(Arc<Context>, Arc<S>) -> TaskFuture + Send + Sync>;

/// A service with the settings `S`: `()`, or a type of [`settings!`](crate::settings!).
///
/// Everything is optional: without further calls, the service has the operations of the kernel.
#[must_use]
pub struct App<S = ()> {
    title: Title,
    access: &'static Access,
    pub(super) api: Api<S>,
    pub(super) constraints: Constraints,
    pub(super) logged_parameters: LoggedParameters,
    sealed: Vec<RegisteredTable>,
    pub(super) tasks: Vec<MakeTask<S>>,
    #[cfg(feature = "dev")]
    demo: Demo,
}

impl<S: ServiceSettings> App<S> {
    /// A service of this name and version: `env!("CARGO_PKG_NAME")` and
    /// `env!("CARGO_PKG_VERSION")`.
    pub fn new(name: &'static str, version: &'static str) -> Self {
        package::set(name, version);
        Self {
            title: Title { title: name, description: "" },
            access: &NO_ACCESS,
            api: Api::new(|_, _| ()),
            constraints: &[],
            logged_parameters: &[],
            sealed: Vec::new(),
            tasks: Vec::new(),
            #[cfg(feature = "dev")]
            demo: Demo::default(),
        }
    }

    /// Sets title and description of the OpenAPI document. The conventions of all operations follow
    /// the description.
    pub fn title(mut self, title: &'static str, description: &'static str) -> Self {
        self.title = Title { title, description };
        self
    }

    /// Sets the access rules: actions with their rows of the route matrix, scopes and roles.
    pub fn access(mut self, access: &'static Access) -> Self {
        self.access = access;
        self
    }

    /// Sets the migrations of the service's tables, and the reviewed rights of each login on them.
    pub fn database(self, migrations: &'static Migrator, rights: &'static str) -> Self {
        package::set_schema(migrations, rights);
        self
    }

    /// Sets the operations: a function that returns one type with `#[OpenApi]`, or a tuple of them.
    /// It runs once for each server.
    pub fn operations<O: OpenApi + 'static>(mut self, make: fn(&Arc<Context>, &S) -> O) -> Self {
        self.api = Api::new(make);
        self
    }

    /// Sets the constraints of the database whose violation is a problem of the caller.
    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    /// Sets the parameters of paths that the log may show besides `{id}`.
    pub fn logged_parameters(mut self, parameters: LoggedParameters) -> Self {
        self.logged_parameters = parameters;
        self
    }

    /// Registers a table with sealed columns, for key rotations. Startup fails unless exactly the
    /// sealed tables of the database are registered.
    pub fn sealed<T: SealedTable>(mut self) -> Self {
        self.sealed.push(RegisteredTable::of::<T>());
        self
    }

    /// Adds a background task. It starts with the server. If it ends, the server stops: so a task
    /// that may fail handles its errors itself.
    pub fn task<F>(mut self, make: impl Fn(Arc<Context>, Arc<S>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.push(Box::new(move |context, settings| Box::pin(make(context, settings))));
        self
    }

    /// Sets the demo data of the command `dev`.
    #[cfg(feature = "dev")]
    pub fn demo(mut self, demo: Demo) -> Self {
        self.demo = demo;
        self
    }

    internal! {
        /// Schemas and document of the API.
        #[must_use]
        pub fn document(&self) -> Document {
            self.api.document(self.title)
        }
    }

    internal! {
        /// The settings of the service, for [`Settings::load`] and the reference.
        #[must_use]
        pub fn sections(&self) -> ServiceSections {
            ServiceSections::of::<S>(self.access.rights)
        }
    }

    internal! {
        /// Reads all settings from these variables.
        ///
        /// # Errors
        /// All faults.
        pub fn read_settings(&self, variables: BTreeMap<String, String>) -> Result<Settings, Faults> {
            Settings::from_variables(variables, self.sections())
        }
    }

    internal! {
        /// docs/settings.md: every setting of the kernel and of the service.
        #[must_use]
        pub fn settings_reference(&self) -> String {
            settings::markdown(self.sections())
        }
    }

    pub(crate) fn document_title(&self) -> Title {
        self.title
    }

    #[cfg(feature = "dev")]
    /// The demo data, as tests add it.
    #[must_use]
    pub fn demo_data(&self) -> Demo {
        self.demo
    }
}

impl<S> App<S> {
    internal! {
        /// The route matrix: the rows of the kernel and of the service.
        ///
        /// # Errors
        /// The declared access rules contradict each other.
        pub fn matrix(&self) -> Result<Matrix, MatrixError> {
            Matrix::new(self.access)
        }
    }

    internal! {
        /// The registered tables with sealed columns, for [`open`](crate::store::maintenance::open).
        #[must_use]
        pub fn sealed_tables(&self) -> &[RegisteredTable] {
            &self.sealed
        }
    }

    internal! {
        /// The scopes and roles that the service declares.
        #[must_use]
        pub fn rights(&self) -> Rights {
            self.access.rights
        }
    }
}

impl<S> fmt::Debug for App<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("title", &self.title).finish_non_exhaustive()
    }
}
