//! Finds each setting in its sources and collects what is wrong, instead of stopping at the first fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use config::{Config, Environment, File, FileFormat};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{
    Profile,
    files::Files,
    secrets::{self, SecretSource},
};

const PREFIX: &str = "APP_";
/// What the database's driver reads of the environment, where a URL need not say it.
const DRIVER: [&str; 6] = ["PGPORT", "PGOPTIONS", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"];

/// One thing that is wrong with the configuration. Holds no secret's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The environment variable of the setting.
    pub variable: String,
    /// What is wrong.
    pub message: String,
}

/// Everything that is wrong with the configuration.
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

/// What a setting that is no secret can be made of.
pub(super) trait Setting: FromStr<Err: Display> {}

impl<T: FromStr<Err: Display>> Setting for T {}

fn parse_setting<T: Setting>(text: &str) -> Result<T, T::Err> {
    text.parse()
}

pub(super) struct Reader {
    config: Config,
    known: BTreeSet<String>,
    faults: Vec<Fault>,
    /// The variables that were given, those too that are in files.
    variables: BTreeSet<String>,
    files: Files,
    /// Names that begin as ours do and are no settings: other programs', unless they are misspelt.
    others: Vec<String>,
    /// Variables that the database's driver looks for.
    of_the_driver: Vec<&'static str>,
    file: Option<PathBuf>,
    profile: Option<Profile>,
    pub(super) secrets: secrets::Found,
}

impl Reader {
    pub(super) fn new(variables: BTreeMap<String, String>) -> Self {
        let mut faults = Vec::new();
        let others = variables.keys().filter(|name| name.starts_with(PREFIX) && !is_ours(name)).cloned().collect();
        let of_the_driver = DRIVER.into_iter().filter(|name| variables.contains_key(*name)).collect();
        let file = variables.get("APP_CONFIG").cloned();
        let (files, variables) = Files::take(variables, &mut faults);
        let given = variables.keys().cloned().collect();
        let environment = Environment::with_prefix("APP")
            .prefix_separator("_")
            .separator("__")
            .source(Some(variables.into_iter().collect()));
        let mut builder = Config::builder();
        let mut of_file = |message: &str| {
            faults.push(Fault { variable: "APP_CONFIG".to_owned(), message: message.to_owned() });
        };
        // By this very path, which is also looked at for who may read it, and followed.
        match file.as_ref().map(std::fs::read_to_string) {
            Some(Ok(text)) => builder = builder.add_source(File::from_str(&text, FileFormat::Toml)),
            Some(Err(_)) => of_file("cannot be read"),
            None => {}
        }
        let config = builder.add_source(environment).build().unwrap_or_else(|_| {
            // A syntax error would quote the line, and the line can hold a password.
            of_file("is not TOML");
            Config::default()
        });
        let file = file.map(PathBuf::from);
        let secrets = secrets::Found::default();
        Self {
            config,
            known: BTreeSet::new(),
            faults,
            variables: given,
            files,
            others,
            of_the_driver,
            file,
            secrets,
            profile: None,
        }
    }

    /// Counts `key` as a setting, so that its presence is not a fault.
    pub(super) fn know(&mut self, key: &str) {
        self.known.insert(key.to_owned());
    }

    /// Whether there is something for `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.config.get_string(key).is_ok()
    }

    pub(super) fn fault(&mut self, key: &str, message: impl Into<String>) {
        self.faults.push(Fault { variable: variable(key), message: message.into() });
    }

    pub(super) fn optional<T: Setting>(&mut self, key: &str) -> Option<T> {
        self.optional_with(key, parse_setting)
    }

    pub(super) fn or<T: Setting>(&mut self, key: &str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    pub(super) fn required<T: Setting>(&mut self, key: &str) -> Option<T> {
        self.required_with(key, parse_setting)
    }

    /// Read once, whoever asks: a fault is told once.
    pub(super) fn profile(&mut self) -> Profile {
        if let Some(profile) = self.profile {
            return profile;
        }
        let profile = self.or("profile", Profile::default());
        *self.profile.insert(profile)
    }

    /// Whether what is unsafe is to be refused.
    pub(super) fn is_production(&mut self) -> bool {
        self.profile() == Profile::Production
    }

    /// The names right below `key`, such as those of a table in the file.
    pub(super) fn names(&self, key: &str) -> BTreeSet<String> {
        self.config.get_table(key).map(|table| table.into_keys().collect()).unwrap_or_default()
    }

    /// Words separated by commas.
    pub(super) fn list<T: Setting>(&mut self, key: &str) -> Vec<T> {
        let words = |text: &str| text.split(',').map(|word| word.trim().parse()).collect::<Result<Vec<T>, T::Err>>();
        self.optional_with(key, words).unwrap_or_default()
    }

    /// A secret, wiped from memory when dropped; no fault ever quotes it.
    pub(super) fn secret(&mut self, key: &str) -> Option<SecretString> {
        self.secret_with(key, |text| Ok::<_, std::convert::Infallible>(SecretString::from(text)))
    }

    /// The same, where it may be missing.
    pub(super) fn optional_secret(&mut self, key: &str) -> Option<SecretString> {
        self.note_secret(key);
        self.optional_with(key, |text| Ok::<_, std::convert::Infallible>(SecretString::from(text)))
    }

    /// A secret of some form. Every secret is read by one of these three, so that it is told (SECRET-05).
    pub(super) fn secret_with<T, E: Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.note_secret(key);
        self.required_with(key, parse)
    }

    fn note_secret(&mut self, key: &str) {
        let Ok(Some(text)) = self.text(key) else { return };
        let source = match (self.files.path(key), &self.file) {
            (Some(file), _) => SecretSource::File(file.to_owned()),
            (None, Some(file)) if !self.variables.contains(&variable(key)) => SecretSource::Config(file.clone()),
            (None, _) => SecretSource::Environment,
        };
        self.secrets.note(key, &text, source);
    }

    pub(super) fn required_with<T, E: Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let before = self.faults.len();
        let value = self.optional_with(key, parse);
        if value.is_none() && self.faults.len() == before {
            self.fault(key, "is required");
        }
        value
    }

    pub(super) fn within<T: Setting + PartialOrd + Display + Copy>(
        &mut self,
        key: &str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        let value = self.or(key, default);
        if range.contains(&value) {
            return value;
        }
        self.fault(key, format!("must be {} to {}", range.start(), range.end()));
        default
    }

    pub(super) fn millis(&mut self, key: &str, default: u64) -> Duration {
        Duration::from_millis(self.within(key, default, 1..=3_600_000))
    }

    /// Adds a fault for each variable that the database's driver would go by where a URL says nothing: options, say, that
    /// switch a timeout off.
    pub(super) fn refuse_the_drivers(&mut self) {
        let message = "must not be set in production: the database's driver would go by it";
        let fault = |name: &&str| Fault { variable: (*name).to_owned(), message: message.to_owned() };
        self.faults.extend(self.of_the_driver.iter().map(fault));
    }

    /// The settings, unless anything at all was wrong.
    pub(super) fn finish<T>(self, settings: T) -> Result<T, Faults> {
        let faults = self.into_faults();
        if faults.0.is_empty() { Ok(settings) } else { Err(faults) }
    }

    /// The faults so far.
    pub(super) fn faults(self) -> Faults {
        Faults(self.faults)
    }

    /// The faults so far, and one for each name in the sources that no setting has.
    pub(super) fn into_faults(mut self) -> Faults {
        let mut present = BTreeSet::new();
        leaves("", &self.config.cache, &mut present);
        for key in present {
            if !self.known.contains(&key) {
                self.fault(&key, "no such setting");
            }
        }
        for name in &self.others {
            let leaf = name.strip_suffix("_FILE").unwrap_or(name);
            if let Some(meant) =
                self.known.iter().map(|key| variable(key)).find(|known| known.replace("__", "_") == leaf)
            {
                let message = format!("no such setting; {meant} is one");
                self.faults.push(Fault { variable: name.clone(), message });
            }
        }
        Faults(self.faults)
    }

    fn optional_with<T, E: Display>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        self.know(key);
        let text = match self.text(key) {
            Ok(text) => text?,
            Err(fault) => {
                self.faults.push(fault);
                return None;
            }
        };
        if text.trim().is_empty() {
            self.fault(key, "is empty");
            return None;
        }
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(key, error.to_string());
                None
            }
        }
    }

    /// What there is for `key`. A fault if there is something else than a text, or the file cannot be read; what that is
    /// called is not quoted: it may be the secret itself, put there by mistake.
    fn text(&mut self, key: &str) -> Result<Option<Zeroizing<String>>, Fault> {
        if let Some(read) = self.files.text(key) {
            let message = |error| format!("the file cannot be read: {error}");
            let fault = |error| Fault { variable: format!("{}_FILE", variable(key)), message: message(error) };
            return read.map(Some).map_err(fault);
        }
        match self.config.get_string(key) {
            Ok(text) => Ok(Some(Zeroizing::new(text))),
            Err(config::ConfigError::NotFound(_)) => Ok(None),
            Err(error) => Err(Fault { variable: variable(key), message: error.to_string() }),
        }
    }

    /// The files that were read, that of all settings too.
    pub(super) fn files_read(&self) -> Vec<PathBuf> {
        self.files.read().chain(self.file.clone()).collect()
    }
}

/// `http.listen` as `APP_HTTP__LISTEN`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Without `__` a name is another program's, unless it is one of the few settings at the top.
pub(super) fn is_ours(name: &str) -> bool {
    let top = ["APP_PROFILE", "APP_PROFILE_FILE"].contains(&name);
    name.starts_with(PREFIX) && (name.contains("__") || top)
}

/// The dotted names of all values.
fn leaves(prefix: &str, value: &config::Value, found: &mut BTreeSet<String>) {
    match &value.kind {
        config::ValueKind::Table(table) => {
            for (name, value) in table {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                leaves(&name, value, found);
            }
        }
        _ => {
            found.insert(prefix.to_owned());
        }
    }
}
