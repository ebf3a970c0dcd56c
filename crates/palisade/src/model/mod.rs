//! Pure types that every service has: tenants, API keys, rights, time, limits, audit events.
//!
//! Nothing here does I/O or knows HTTP, SQL or JSON Web Tokens. A value of one of these types is
//! valid: it is parsed once, at the boundary, and not checked again. The macros
//! [`ids!`](crate::ids), [`texts!`](crate::texts), [`text_enum!`](crate::text_enum) and
//! [`personal_data!`](crate::personal_data) declare the types of a service in the same way.

#[cfg(feature = "api_keys")]
mod api_key;
mod audit;
mod clock;
mod code;
mod ids;
mod network;
mod overrides;
mod personal;
mod quota;
mod revocation;
mod rights;
#[cfg(feature = "sessions")]
mod session;
mod state;
mod tenant;
mod text;
mod text_enum;

#[cfg(feature = "api_keys")]
pub use api_key::ApiKey;
pub use audit::{AuditEvent, AuditObject, AuditSeal, ChangedColumn, ObjectId};
pub use clock::Clock;
pub use code::{Code, CodeError};
pub use ids::{ApiKeyId, AuditEventId, SessionId, TenantId};
pub use network::{ClientNetwork, Network};
pub use overrides::{ActiveOverride, Override};
pub use personal::{PersonalData, PersonalDataAccess, PersonalDataError, masked};
pub use quota::QuotaName;
pub use revocation::{Revocation, RevocationKind};
pub(crate) use rights::is_token;
pub use rights::{Permission, Rights, Role, RoleTable, Scope, ServiceRight};
#[cfg(feature = "sessions")]
pub use session::Session;
pub use state::{State, Stateless};
pub use tenant::{RegisteredTenant, TenantState};
pub use text::{Name, TextError, normalize};
pub(crate) use text::{is_control_or_invisible, is_joiner_or_selector};
pub use text_enum::UnknownValue;

/// For the macro of personal data only.
#[doc(hidden)]
pub mod __macro {
    pub use secrecy::{ExposeSecret, SecretString};
}
