//! Rows of the table of settings, and the macro that builds structs, rows and readers from it.
//!
//! A [`Setting<T>`] is a row with the type of its value. [`Reader::read`](super::Reader::read)
//! takes one, so code cannot read a setting that [`TABLE`](super::TABLE) does not list.

use std::fmt;

use super::{
    Reader,
    value::{Shape, Value},
};

/// Prefix of every environment variable.
pub(super) const PREFIX: &str = "APP_";
/// Stands in a key for a name that the operator chooses.
const NAME: &str = "<name>";

/// A table of settings that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Heading of the reference page.
    pub title: &'static str,
    pub(super) place: Place,
    /// The settings.
    pub rows: &'static [Row],
}

/// One setting, as operators see it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    place: Place,
    leaf: &'static str,
    /// The kind of value, permitted words, and whether it is secret.
    pub shape: Shape,
    /// One or two sentences for operators.
    pub summary: &'static str,
    /// The value that applies if the setting is absent.
    pub default: Option<&'static str>,
    /// Describes a default that depends on something else.
    pub default_text: Option<&'static str>,
    /// Bounds of a number.
    pub bounds: Option<Bounds>,
    /// Whether a changed file takes effect without a restart (SECRET-04).
    pub reloaded: bool,
    /// Whether a further issuer inherits the value of the first.
    pub(super) inherited: bool,
}

/// Bounds of a number, both included.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The smallest accepted number.
    pub min: &'static str,
    /// The largest accepted number.
    pub max: &'static str,
    /// Unit, or what is counted.
    pub unit: &'static str,
}

/// Where the settings of a section are: `http`, or `oidc` and also `oidc.further.<name>`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) prefix: &'static str,
    pub(super) family: Option<&'static str>,
}

/// The dotted name of a setting, such as `http.listen`. Only rows make one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(String);

/// A row whose values are of type `T`.
pub(super) struct Setting<T> {
    pub(super) row: Row,
    /// Adds faults for a value that is well-formed and unsafe.
    pub(super) check: fn(&Key, &T, &mut Reader),
}

impl<T: Value> Setting<T> {
    pub(super) const fn new(place: Place, leaf: &'static str, summary: &'static str) -> Self {
        let row = Row {
            place,
            leaf,
            shape: T::SHAPE,
            summary,
            default: None,
            default_text: None,
            bounds: None,
            reloaded: false,
            inherited: false,
        };
        Self { row, check: |_, _, _| {} }
    }

    pub(super) const fn default(mut self, text: &'static str) -> Self {
        self.row.default = Some(text);
        self
    }

    pub(super) const fn default_text(mut self, text: &'static str) -> Self {
        self.row.default_text = Some(text);
        self
    }

    pub(super) const fn within(mut self, min: &'static str, max: &'static str, unit: &'static str) -> Self {
        self.row.bounds = Some(Bounds { min, max, unit });
        self
    }

    pub(super) const fn reloaded(mut self) -> Self {
        self.row.reloaded = true;
        self
    }

    pub(super) const fn inherited(mut self) -> Self {
        self.row.inherited = true;
        self
    }

    pub(super) const fn check(mut self, check: fn(&Key, &T, &mut Reader)) -> Self {
        self.check = check;
        self
    }

    /// The key of a setting that exists once.
    pub(super) fn key(&self) -> Key {
        self.row.key(None)
    }

    /// The key of a setting of the further issuer or the service of this name.
    pub(super) fn key_of(&self, name: Option<&str>) -> Key {
        self.row.key(name)
    }
}

impl Row {
    /// The environment variables: one, or, for settings of issuers, that of the first issuer and
    /// that of a further one. `<NAME>` stands for a name that the operator chooses.
    #[must_use]
    pub fn variables(&self) -> Vec<String> {
        self.patterns().map(|pattern| pattern.variable()).collect()
    }

    pub(super) fn key(&self, name: Option<&str>) -> Key {
        match self.place.base(name) {
            base if base.is_empty() => Key(self.leaf.to_owned()),
            base => Key(format!("{base}.{}", self.leaf)),
        }
    }

    fn patterns(&self) -> impl Iterator<Item = Key> {
        let further = self.place.family.map(|_| self.key(Some(NAME)));
        std::iter::once(self.key(None)).chain(further)
    }

    /// Whether this row describes the setting of this dotted name.
    pub(super) fn describes(&self, key: &str) -> bool {
        self.patterns().any(|Key(pattern)| match pattern.split_once(NAME) {
            Some((before, after)) => {
                let name = key.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                name.is_some_and(|name| !name.contains('.'))
            }
            None => pattern == key,
        })
    }
}

impl Place {
    fn base(self, name: Option<&str>) -> String {
        name.map_or(self.prefix.to_owned(), |name| self.family.unwrap_or(self.prefix).replace(NAME, name))
    }

    /// The further issuer or the service of this name.
    pub(super) fn named(self, name: &str) -> Key {
        Key(self.base(Some(name)))
    }

    /// The table whose keys are the names.
    pub(super) fn names(self) -> Key {
        let family = self.family.unwrap_or(self.prefix);
        Key(family.strip_suffix(NAME).unwrap_or(family).trim_end_matches('.').to_owned())
    }
}

impl Key {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// `http.listen` as `APP_HTTP__LISTEN`.
    pub(super) fn variable(&self) -> String {
        variable(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.variable())
    }
}

/// The environment variable of a dotted name.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Builds, for each section, its struct with documented fields, a [`Setting`] per field (an
/// associated constant of the field's name), the function `read_rows`, and at the end `TABLE`.
///
/// `struct` defines the struct, `fill` takes one of another module, and `rows` has none. A row is
/// `field: type = "leaf".attribute() => check, "summary";`. Fields after `+` are no settings;
/// `read_rows` takes their values.
macro_rules! table {
    ($(
        $(#[$meta:meta])*
        $vis:vis $how:ident $name:ident($prefix:literal $(, $family:literal)?), $title:literal {
            $($field:ident: $type:ty = $leaf:literal $(.$attribute:ident($($argument:expr),*))* $(=> $check:path)?, $summary:literal;)*
        }
        $(+ { $($(#[$doc:meta])* $extra:ident: $extra_type:ty,)* })?
    )+) => {
        $(
            impl $name {
                $(
                    #[expect(non_upper_case_globals, reason = "a row has the name of the field that it fills")]
                    pub(super) const $field: Setting<$type> =
                        Setting::new(Self::PLACE, $leaf, $summary)$(.$attribute($(concat!($argument)),*))* $(.check($check))?;
                )*
                const PLACE: Place = Place { prefix: $prefix, family: [$(Some($family),)? None][0] };
                pub(super) const SECTION: Section =
                    Section { title: $title, place: Self::PLACE, rows: &[$(Self::$field.row),*] };
            }

            $crate::settings::row::define! {
                $how [$(#[$meta])*] [$vis] $name [$($field: $type, $summary;)*] [$($($(#[$doc])* $extra: $extra_type,)*)?]
            }
        )+

        /// Every setting there is.
        pub static TABLE: &[Section] = &[$($name::SECTION),+];
    };
}

/// The struct of a section of [`table!`], and its `read_rows`.
macro_rules! define {
    (rows [$($meta:tt)*] [$vis:vis] $name:ident $fields:tt []) => {
        $($meta)*
        $vis enum $name {}
    };
    (
        struct [$($meta:tt)*] [$vis:vis] $name:ident
        [$($field:ident: $type:ty, $summary:literal;)*] [$($(#[$doc:meta])* $extra:ident: $extra_type:ty,)*]
    ) => {
        $($meta)*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $(#[doc = $summary] pub $field: $type,)*
            $($(#[$doc])* pub $extra: $extra_type,)*
        }
        $crate::settings::row::define! {
            fill [] [$vis] $name [$($field: $type, $summary;)*] [$($(#[$doc])* $extra: $extra_type,)*]
        }
    };
    (
        fill [] [$vis:vis] $name:ident
        [$($field:ident: $type:ty, $summary:literal;)*] [$($(#[$doc:meta])* $extra:ident: $extra_type:ty,)*]
    ) => {
        impl $name {
            /// Reads every row, so that the reader has all faults; `None` if a required value is
            /// missing.
            pub(super) fn read_rows(r: &mut Reader, name: Option<&str>, $($extra: Option<$extra_type>),*) -> Option<Self> {
                $(let $field = r.read(&Self::$field, name);)*
                Some(Self { $($field: $field?,)* $($extra: $extra?,)* })
            }
        }
    };
}

pub(super) use {define, table};
