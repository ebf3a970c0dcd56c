//! Identifiers: one type per kind of object, so that an id of another kind does not compile.

use std::{fmt, str::FromStr};

use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps the identifier of an object of this kind.
            #[must_use]
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The identifier as a plain UUID.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    };
}

id! {
    /// An organisation that uses the service. Every row and every caller belongs to exactly one.
    TenantId
}

macro_rules! generated {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        id! { $(#[$doc])* $name }

        impl $name {
            /// Generates an identifier, a `UUIDv7` (RFC 9562 section 5.7): sorted by time.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }
    )+};
}

generated! {
    /// An API key.
    ApiKeyId,
    /// An event of the audit trail.
    AuditEventId,
    /// An order.
    OrderId,
    /// A customer of a tenant.
    CustomerId,
    /// An invoice.
    InvoiceId,
    /// A payment.
    PaymentId,
    /// A refund.
    RefundId,
}

/// An object that belongs to one tenant. [`crate::authz`] makes an object permit from a permit and
/// one of these.
pub trait TenantObject {
    /// Type of its identifier.
    type Id: Copy + fmt::Debug;

    /// The identifier, unique in the tenant.
    fn id(&self) -> Self::Id;

    /// The tenant that owns it.
    fn tenant(&self) -> TenantId;
}
