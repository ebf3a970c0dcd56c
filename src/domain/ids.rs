use std::{fmt, str::FromStr};

use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps an identifier that is already known to be one of this kind.
            #[must_use]
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The identifier without its kind.
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
    /// A customer of the service as a whole; every row and every caller belongs to exactly one.
    TenantId
}

macro_rules! generated {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        id! { $(#[$doc])* $name }

        impl $name {
            /// A new identifier, a `UUIDv7` (RFC 9562 section 5.7).
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

/// Something that belongs to one tenant.
pub trait TenantObject {
    /// What identifies it inside the tenant.
    type Id: Copy + fmt::Debug;

    /// Its identifier.
    fn id(&self) -> Self::Id;

    /// Whose it is.
    fn tenant(&self) -> TenantId;
}
