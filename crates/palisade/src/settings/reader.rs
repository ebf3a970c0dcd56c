//! Reads settings from the environment, from files named by `APP_…_FILE`, and from the TOML file
//! named by `APP_CONFIG` (SECRET-02); collects every fault instead of stopping at the first
//! (SECRET-03).
//!
//! The sections of `table.rs` call [`Reader::read`]; `checks.rs` and others add faults for unsafe
//! combinations. [`Settings`](super::Settings) takes the outcome.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    path::PathBuf,
};

use config::{Config, Environment, File, FileFormat};
use zeroize::Zeroizing;

use super::{
    Profile, ServiceSections,
    files::Files,
    row::{PREFIX, Row, Section, SectionPath, Setting, SettingName, variable},
    secrets::{SecretRead, SecretSource},
    table::{self, General},
    value::Value,
};
use crate::model::Rights;

/// Variables that the PostgreSQL driver reads for what a URL does not say.
const DRIVER_VARIABLES: [&str; 6] = ["PGPORT", "PGOPTIONS", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"];

/// A fault of the configuration. Never contains the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The environment variable of the setting.
    pub variable: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// All faults of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the configuration has {} fault(s):", self.0.len())?;
        for Fault { variable, message } in &self.0 {
            writeln!(f, "  {variable}: {message}")?;
        }
        Ok(())
    }
}

/// The sources of settings, and the faults found so far.
pub struct Reader {
    config: Config,
    faults: Vec<Fault>,
    /// Variables that are set, including those whose value is in a file.
    variables: BTreeSet<String>,
    files: Files,
    /// `APP_…` variables without `__`: those of other programs, unless one is a misspelt setting.
    foreign_variables: Vec<String>,
    driver_variables: Vec<&'static str>,
    config_path: Option<PathBuf>,
    pub(super) profile: Profile,
    /// The sections of the service.
    service: ServiceSections,
    secrets: BTreeMap<String, SecretRead>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("faults", &self.faults).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(variables: BTreeMap<String, String>, service: ServiceSections) -> Self {
        let mut faults = Vec::new();
        let foreign = variables.keys().filter(|name| name.starts_with(PREFIX) && !is_setting(name)).cloned();
        let foreign_variables = foreign.collect();
        let driver_variables = DRIVER_VARIABLES.into_iter().filter(|name| variables.contains_key(*name)).collect();
        let config_path = variables.get("APP_CONFIG").map(PathBuf::from);
        let (files, variables) = Files::extract(variables, &mut faults);
        let names = variables.keys().cloned().collect();
        let mut config_fault = |message: &str| {
            faults.push(Fault { variable: "APP_CONFIG".to_owned(), message: message.to_owned() });
        };
        let mut builder = Config::builder();
        // Read here and not by `config`, so that the path is the one whose mode is checked and that
        // is watched for changes.
        match config_path.as_ref().map(std::fs::read_to_string) {
            Some(Ok(text)) => builder = builder.add_source(File::from_str(&text, FileFormat::Toml)),
            Some(Err(_)) => config_fault("the file cannot be read"),
            None => {}
        }
        let environment = Environment::with_prefix("APP")
            .prefix_separator("_")
            .separator("__")
            .source(Some(variables.into_iter().collect()));
        let config = builder.add_source(environment).build().unwrap_or_else(|_| {
            // The error would quote the line, which can contain a password.
            config_fault("the file is not valid TOML");
            Config::default()
        });
        let mut reader = Self {
            config,
            faults,
            variables: names,
            files,
            foreign_variables,
            driver_variables,
            config_path,
            profile: Profile::default(),
            service,
            secrets: BTreeMap::new(),
        };
        reader.profile = reader.read(&General::profile, None).unwrap_or_default();
        reader
    }

    /// The scopes and roles that the service declares.
    pub(super) fn rights(&self) -> Rights {
        self.service.rights
    }

    /// The value of a setting; `instance` names the further issuer or the service.
    ///
    /// Adds a fault if the value is invalid or a required one is absent. The default replaces an
    /// invalid value, so that later checks find their own faults; `None` if there is no default.
    pub fn read<T: Value>(&mut self, setting: &Setting<T>, instance: Option<&str>) -> Option<T> {
        let row = &setting.row;
        let name = row.resolve_name(instance);
        match self.text(&name) {
            Some(text) if text.trim().is_empty() => self.fault(&name, "is empty"),
            Some(text) => {
                if row.shape.secret {
                    self.register_secret(&name, &text);
                }
                match T::parse(&text, row) {
                    Ok(value) => {
                        (setting.check)(&name, &value, self);
                        return Some(value);
                    }
                    Err(message) => self.fault(&name, message),
                }
            }
            None => {}
        }
        let inherits = row.inherited && instance.is_some();
        let inherited = if inherits { self.text(&row.resolve_name(None)) } else { None };
        let fallback = inherited.and_then(|text| T::parse(&text, row).ok());
        let fallback = fallback.or_else(|| T::parse(row.default()?, row).ok()).or_else(T::absent);
        if fallback.is_none() && !self.has(&name) {
            self.fault(&name, "is required");
        }
        fallback
    }

    /// Whether a setting has a value.
    pub(super) fn has(&self, name: &SettingName) -> bool {
        self.config.get_string(name.as_str()).is_ok()
    }

    /// Reads a section that is only used with `setting`. Without it, its other settings are faults.
    pub(super) fn read_section<S, T: Value>(
        &mut self,
        section: &Section,
        setting: &Setting<T>,
        read: fn(&mut Self, Option<&str>) -> Option<S>,
    ) -> Option<S> {
        let required = setting.name();
        if self.has(&required) {
            return read(self, None);
        }
        let names = section.rows.iter().map(|row| row.resolve_name(None));
        for present in names.filter(|name| self.has(name)).collect::<Vec<_>>() {
            self.fault(&present, format!("has no effect without {required}; set that too, or remove this"));
        }
        None
    }

    /// The names of the instances of a section: further issuers, or services.
    pub(super) fn instances(&self, path: SectionPath) -> BTreeSet<String> {
        let table = self.config.get_table(path.instances_table().as_str());
        table.map(|table| table.into_keys().collect()).unwrap_or_default()
    }

    /// Adds a fault of a setting.
    pub fn fault(&mut self, name: &SettingName, message: impl Into<String>) {
        self.add(&name.variable(), message);
    }

    /// A setting that is read twice has its fault once.
    pub(super) fn add(&mut self, variable: &str, message: impl Into<String>) {
        let fault = Fault { variable: variable.to_owned(), message: message.into() };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Whether unsafe values are faults.
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.profile == Profile::Production
    }

    pub(super) fn secrets_read(&self) -> Vec<SecretRead> {
        self.secrets.values().cloned().collect()
    }

    /// Adds a fault for each variable that could change how the PostgreSQL driver connects, for
    /// example by switching a timeout off.
    pub(super) fn reject_driver_variables(&mut self) {
        for name in std::mem::take(&mut self.driver_variables) {
            self.add(name, "must not be set in production: the PostgreSQL driver would apply it; unset it");
        }
    }

    /// The settings, unless there is a fault.
    pub(super) fn finish<T>(self, settings: Option<T>) -> Result<T, Faults> {
        match settings {
            Some(settings) if self.faults.is_empty() => Ok(settings),
            _ => Err(Faults(self.faults)),
        }
    }

    /// Adds a fault for each name in the sources that no row describes.
    pub(super) fn reject_unknown_names(&mut self) {
        let service = self.service;
        let rows = move || service.all().flat_map(|section| section.rows);
        let mut present = BTreeSet::new();
        collect_names("", &self.config.cache, &mut present);
        for name in present.iter().filter(|name| !rows().any(|row| row.describes(name))) {
            let mut without = table::WITHOUT.iter();
            let message = match without.find(|(_, section)| section.rows.iter().any(|row| row.describes(name))) {
                Some((feature, _)) => format!("needs the feature `{feature}` of palisade; build the program with it"),
                None => "no such setting; docs/settings.md lists all".to_owned(),
            };
            self.add(&variable(name), message);
        }
        for name in std::mem::take(&mut self.foreign_variables) {
            let written = name.strip_suffix("_FILE").unwrap_or(&name);
            let meant = rows().flat_map(Row::variables).find(|known| known.replace("__", "_") == written);
            if let Some(meant) = meant {
                self.add(&name, format!("no such setting; use {meant}"));
            }
        }
    }

    fn register_secret(&mut self, name: &SettingName, text: &str) {
        let source = match (self.files.path(name), &self.config_path) {
            (Some(file), _) => SecretSource::File(file.to_owned()),
            (None, Some(file)) if !self.variables.contains(&name.variable()) => SecretSource::Config(file.clone()),
            (None, _) => SecretSource::Environment,
        };
        self.secrets.insert(name.variable(), SecretRead::new(name, text, source));
    }

    /// The text of a setting; adds a fault if there is something that cannot be read. A fault does
    /// not quote the path of a file: it may be the secret itself, by mistake.
    fn text(&mut self, name: &SettingName) -> Option<Zeroizing<String>> {
        match (self.files.text(name), self.config.get_string(name.as_str())) {
            (Some(Ok(text)), _) => return Some(text),
            (Some(Err(error)), _) => {
                self.add(&format!("{}_FILE", name.variable()), format!("the file cannot be read: {error}"));
            }
            (None, Ok(text)) => return Some(Zeroizing::new(text)),
            (None, Err(config::ConfigError::NotFound(_))) => {}
            (None, Err(error)) => self.fault(name, error.to_string()),
        }
        None
    }

    /// The files that were read, including the TOML file.
    pub(super) fn files_read(&self) -> Vec<PathBuf> {
        self.files.read().chain(self.config_path.clone()).collect()
    }
}

/// Without `__` a variable is another program's, unless it is a setting without a section.
pub(super) fn is_setting(variable: &str) -> bool {
    let without_section = ["APP_PROFILE", "APP_ACCEPTED_RISKS"];
    let name = variable.strip_suffix("_FILE").unwrap_or(variable);
    variable.starts_with(PREFIX) && (variable.contains("__") || without_section.contains(&name))
}

/// Collects the dotted names of all values.
fn collect_names(prefix: &str, value: &config::Value, names: &mut BTreeSet<String>) {
    let config::ValueKind::Table(table) = &value.kind else {
        names.insert(prefix.to_owned());
        return;
    };
    for (name, value) in table {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        collect_names(&name, value, names);
    }
}
