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
/// Stands in a [`SettingName`] for the name that the operator gives an instance.
const INSTANCE: &str = "<name>";

/// A table of settings that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Heading of the reference page.
    pub title: &'static str,
    #[doc(hidden)]
    pub path: SectionPath,
    /// The settings.
    pub rows: &'static [Row],
}

/// One setting, as operators see it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    path: SectionPath,
    last_part: &'static str,
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

/// Prefix of the settings of a section, and the prefix of its named instances, if it has any:
/// `http`, or `oidc` with `oidc.further.<name>`.
#[derive(Clone, Copy, Debug)]
pub struct SectionPath {
    /// Prefix of settings that exist once.
    pub prefix: &'static str,
    /// Prefix of settings that exist once per instance.
    pub instance_prefix: Option<&'static str>,
}

/// The dotted name of a setting, such as `http.listen`. Only rows make one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SettingName(String);

/// A row whose values are of type `T`.
#[derive(Debug)]
pub struct Setting<T> {
    /// What operators see.
    pub row: Row,
    /// Adds faults for a value that is well-formed and unsafe.
    pub(super) check: fn(&SettingName, &T, &mut Reader),
}

impl<T: Value> Setting<T> {
    /// A required setting without bounds.
    #[must_use]
    pub const fn new(path: SectionPath, last_part: &'static str, summary: &'static str) -> Self {
        let row = Row {
            path,
            last_part,
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

    /// Sets the value that applies if the setting is absent.
    #[must_use]
    pub const fn default(mut self, text: &'static str) -> Self {
        self.row.default = Some(text);
        self
    }

    /// Describes a default that depends on something else.
    #[must_use]
    pub const fn default_text(mut self, text: &'static str) -> Self {
        self.row.default_text = Some(text);
        self
    }

    /// Sets the bounds of a number, and its unit.
    #[must_use]
    pub const fn within(mut self, min: &'static str, max: &'static str, unit: &'static str) -> Self {
        self.row.bounds = Some(Bounds { min, max, unit });
        self
    }

    /// Says that a changed file takes effect without a restart (SECRET-04).
    #[must_use]
    pub const fn reloaded(mut self) -> Self {
        self.row.reloaded = true;
        self
    }

    pub(super) const fn inherited(mut self) -> Self {
        self.row.inherited = true;
        self
    }

    /// Adds a check of well-formed values, which adds faults for unsafe ones.
    #[must_use]
    pub const fn check(mut self, check: fn(&SettingName, &T, &mut Reader)) -> Self {
        self.check = check;
        self
    }

    /// The name of a setting that exists once.
    pub(super) fn name(&self) -> SettingName {
        self.row.resolve_name(None)
    }

    /// The name of the setting for an instance: a further issuer or a service.
    pub(super) fn resolve_name(&self, instance: Option<&str>) -> SettingName {
        self.row.resolve_name(instance)
    }
}

impl Row {
    /// The environment variables: one, or, for settings of issuers, that of the first issuer and
    /// that of a further one. `<NAME>` stands for a name that the operator chooses.
    #[must_use]
    pub fn variables(&self) -> Vec<String> {
        self.patterns().map(|pattern| pattern.variable()).collect()
    }

    /// The default, with the name of the package in place of `<package>`.
    pub(super) fn default(&self) -> Option<&'static str> {
        self.default.map(|text| if text == "<package>" { crate::package::name() } else { text })
    }

    pub(super) fn resolve_name(&self, instance: Option<&str>) -> SettingName {
        match self.path.resolve_prefix(instance) {
            prefix if prefix.is_empty() => SettingName(self.last_part.to_owned()),
            prefix => SettingName(format!("{prefix}.{}", self.last_part)),
        }
    }

    fn patterns(&self) -> impl Iterator<Item = SettingName> {
        let of_instances = self.path.instance_prefix.map(|_| self.resolve_name(Some(INSTANCE)));
        std::iter::once(self.resolve_name(None)).chain(of_instances)
    }

    /// Whether this row describes the setting of this dotted name.
    pub(super) fn describes(&self, name: &str) -> bool {
        self.patterns().any(|SettingName(pattern)| match pattern.split_once(INSTANCE) {
            Some((before, after)) => {
                let instance = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                instance.is_some_and(|instance| !instance.contains('.'))
            }
            None => pattern == name,
        })
    }
}

impl SectionPath {
    fn resolve_prefix(self, instance: Option<&str>) -> String {
        let replace = |instance| self.instance_prefix.unwrap_or(self.prefix).replace(INSTANCE, instance);
        instance.map_or(self.prefix.to_owned(), replace)
    }

    /// The path of the table of one instance, such as `oidc.further.partner`.
    pub(super) fn instance_path(self, instance: &str) -> SettingName {
        SettingName(self.resolve_prefix(Some(instance)))
    }

    /// The path of the table that has one entry per instance, such as `oidc.further`.
    pub(super) fn instances_table(self) -> SettingName {
        let prefix = self.instance_prefix.unwrap_or(self.prefix);
        SettingName(prefix.strip_suffix(INSTANCE).unwrap_or(prefix).trim_end_matches('.').to_owned())
    }
}

impl SettingName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// `http.listen` as `APP_HTTP__LISTEN`.
    pub(super) fn variable(&self) -> String {
        variable(&self.0)
    }
}

impl fmt::Display for SettingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.variable())
    }
}

/// The environment variable of a dotted name.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('.', "__"))
}

/// Builds one section: its struct with documented fields, a [`Setting`] per field (an associated
/// constant of the field's name), and the function `read_rows`.
///
/// `struct` defines the struct and implements `read_rows`. `fill` implements `read_rows` for a
/// struct of another module; `rows` makes no struct. A row is
/// `field: type = "last_part".attribute() => check, "summary";`. Fields after `+` are not settings;
/// `read_rows` takes their values.
#[doc(hidden)]
#[macro_export]
macro_rules! settings_section {
    (
        $(#[$meta:meta])*
        $vis:vis $how:ident $name:ident($prefix:literal $(, $instance_prefix:literal)?), $title:literal {
            $($field:ident: $type:ty = $last_part:literal $(.$attribute:ident($($argument:expr),*))* $(=> $check:path)?, $summary:literal;)*
        }
        $(+ { $($(#[$doc:meta])* $extra:ident: $extra_type:ty,)* })?
    ) => {
        impl $name {
            $(
                #[expect(non_upper_case_globals, reason = "a row has the name of the field that it fills")]
                pub(super) const $field: $crate::settings::row::Setting<$type> =
                    $crate::settings::row::Setting::new(Self::PATH, $last_part, $summary)
                        $(.$attribute($(concat!($argument)),*))* $(.check($check))?;
            )*
            const PATH: $crate::settings::row::SectionPath = $crate::settings::row::SectionPath {
                prefix: $prefix,
                instance_prefix: [$(Some($instance_prefix),)? None][0],
            };
            pub(super) const SECTION: $crate::settings::Section =
                $crate::settings::Section { title: $title, path: Self::PATH, rows: &[$(Self::$field.row),*] };
        }

        $crate::settings_section! {
            @$how [$(#[$meta])*] [$vis] $name [$($field: $type, $summary;)*] [$($($(#[$doc])* $extra: $extra_type,)*)?]
        }
    };
    (@rows [$($meta:tt)*] [$vis:vis] $name:ident $fields:tt []) => {
        $($meta)*
        $vis enum $name {}
    };
    (
        @struct [$($meta:tt)*] [$vis:vis] $name:ident
        [$($field:ident: $type:ty, $summary:literal;)*] [$($(#[$doc:meta])* $extra:ident: $extra_type:ty,)*]
    ) => {
        $($meta)*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $(#[doc = $summary] pub $field: $type,)*
            $($(#[$doc])* pub $extra: $extra_type,)*
        }
        $crate::settings_section! {
            @fill [] [$vis] $name [$($field: $type, $summary;)*] [$($(#[$doc])* $extra: $extra_type,)*]
        }
    };
    (
        @fill [] [$vis:vis] $name:ident
        [$($field:ident: $type:ty, $summary:literal;)*] [$($(#[$doc:meta])* $extra:ident: $extra_type:ty,)*]
    ) => {
        impl $name {
            /// Reads every row, so that the reader has all faults; `None` if a required value is
            /// missing.
            pub(super) fn read_rows(
                r: &mut $crate::settings::Reader,
                instance: Option<&str>,
                $($extra: Option<$extra_type>),*
            ) -> Option<Self> {
                $(let $field = r.read(&Self::$field, instance);)*
                Some(Self { $($field: $field?,)* $($extra: $extra?,)* })
            }
        }
    };
}

/// The sections of the kernel, and at the end `TABLE`. A section with `feature "…"` after its title
/// is in it if the crate has that feature.
macro_rules! table {
    ($(
        $(#[$meta:meta])*
        $vis:vis $how:ident $name:ident($($path:literal),+), $title:literal $(, feature $feature:literal)? {
            $($rows:tt)*
        } $(+ { $($extra:tt)* })?
    )+) => {
        $(
            $crate::settings_section! {
                $(#[$meta])* $vis $how $name($($path),+), $title { $($rows)* } $(+ { $($extra)* })?
            }
        )+

        /// Every setting of the kernel.
        pub static TABLE: &[Section] = &[$($(#[cfg(feature = $feature)])? $name::SECTION),+];

        /// The sections of features that this build is without, each with the name of its feature.
        pub(super) static WITHOUT: &[(&str, Section)] =
            &[$($(#[cfg(not(feature = $feature))] ($feature, $name::SECTION),)?)+];
    };
}

pub(super) use table;
