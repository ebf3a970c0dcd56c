//! Settings that a service declares for itself, with [`settings!`](crate::settings!).
//!
//! They are read like those of the kernel: the same sources, the same precedence, and all faults at
//! once. The reference lists them last.

use super::{Reader, Section, TABLE, oidc};
use crate::model::{Rights, RoleTable};

/// The settings of a service. [`settings!`](crate::settings!) implements it.
pub trait ServiceSettings: Sized + Send + Sync + 'static {
    /// The sections of the table.
    const SECTIONS: &'static [Section];

    /// Reads every setting, so that the reader has all faults; `None` if a required value is
    /// missing.
    fn read(reader: &mut Reader) -> Option<Self>;
}

/// A service without settings of its own.
impl ServiceSettings for () {
    const SECTIONS: &'static [Section] = &[];

    fn read(_: &mut Reader) -> Option<Self> {
        Some(())
    }
}

impl ServiceSections {
    /// Without a service: no settings, scopes or roles.
    pub(super) const NONE: Self = Self::of::<()>(Rights { scopes: &[], roles: RoleTable(&[]) });
}

/// The settings of a service as the kernel sees them: names and faults, no values.
#[derive(Clone, Copy, Debug)]
pub struct ServiceSections {
    sections: &'static [Section],
    /// The scopes and roles that settings may name.
    pub(super) rights: Rights,
    pub(super) check: fn(&mut Reader),
}

impl ServiceSections {
    /// Those of the type `S`, and the scopes and roles that settings may name.
    #[must_use]
    pub const fn of<S: ServiceSettings>(rights: Rights) -> Self {
        let check = |reader: &mut Reader| {
            // The reader has the faults.
            let _ = S::read(reader);
        };
        Self { sections: S::SECTIONS, rights, check }
    }

    /// The sections of the kernel, then those of the service.
    pub fn all(self) -> impl Iterator<Item = &'static Section> {
        TABLE.iter().chain(oidc::TABLE).chain(self.sections)
    }
}

/// Declares the settings of a service, one row per setting: field, type, name, default, bounds with
/// unit, and meaning. The variable of `max_total` in the section `orders` is
/// `APP_ORDERS__MAX_TOTAL`.
#[macro_export]
macro_rules! settings {
    ($(#[$meta:meta])* $vis:vis struct $name:ident($prefix:literal), $title:literal { $($rows:tt)* }) => {
        $crate::settings_section! { $(#[$meta])* $vis struct $name($prefix), $title { $($rows)* } }

        impl $crate::settings::ServiceSettings for $name {
            const SECTIONS: &'static [$crate::settings::Section] = &[Self::SECTION];

            fn read(reader: &mut $crate::settings::Reader) -> Option<Self> {
                Self::read_rows(reader, None)
            }
        }
    };
}
