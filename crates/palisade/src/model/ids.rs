//! Identifiers: one type per kind of object, so that an id of another kind does not compile.
//!
//! A service declares its own with [`ids!`](crate::ids).

/// Declares types of identifiers, each a UUID of one kind of object.
#[macro_export]
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $crate::ids! { @type $(#[$doc])* $name }

        impl $name {
            /// Generates an identifier, a `UUIDv7` (RFC 9562 section 5.7): sorted by time.
            #[must_use]
            pub fn generate() -> Self {
                Self(::uuid::Uuid::now_v7())
            }
        }
    )+};
    (@type $(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(::uuid::Uuid);

        impl $name {
            /// Wraps the identifier of an object of this kind.
            #[must_use]
            pub const fn from_uuid(id: ::uuid::Uuid) -> Self {
                Self(id)
            }

            /// The identifier as a plain UUID.
            #[must_use]
            pub const fn uuid(self) -> ::uuid::Uuid {
                self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(self.0.as_hyphenated(), f)
            }
        }

        impl $crate::model::AuditObject for $name {
            fn __object(&self) -> String {
                self.0.as_hyphenated().to_string()
            }
        }

        impl $crate::model::ObjectId for $name {
            fn __uuid(&self) -> ::uuid::Uuid {
                self.0
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = ::uuid::Error;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    };
}

ids! {
    @type
    /// An organisation that uses the service. Every row and every caller belongs to exactly one.
    TenantId
}

ids! {
    /// An API key.
    ApiKeyId,
    /// An event of the audit trail.
    AuditEventId,
    /// A browser session.
    SessionId,
}
