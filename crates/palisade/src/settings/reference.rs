//! The reference of all settings: the command `settings`, and docs/settings.md made by it.

use std::fmt::Write as _;

use super::{
    ServiceSections,
    row::{Row, variable},
};

const INTRODUCTION: &str = "\
# Settings

This page is the output of `cargo run --features dev -- settings --markdown`; do not edit it.

A setting is an environment variable, or a value in the TOML file that `APP_CONFIG` names:
`APP_HTTP__LISTEN` is `listen` in the table `[http]`. A variable takes precedence. A variable with
`_FILE` after its name gives the path of a file with the value, as is usual for secrets. Lists are
separated by commas. `check-config` reports every fault at once.

Notes: a *secret* is never shown; in production its file must have mode 400 or 440. A *reloaded*
setting takes effect without a restart when its file changes, see [secrets.md](secrets.md).
";

/// docs/settings.md, with the sections of the service at the end.
#[must_use]
pub fn markdown(service: ServiceSections) -> String {
    let mut text = INTRODUCTION.to_owned();
    for section in service.all() {
        let _ = write!(text, "\n## {}\n\n", section.title);
        if let Some(prefix) = section.path.instance_prefix {
            let variable = variable(prefix);
            let _ = writeln!(
                text,
                "Further issuers have the same settings as `{variable}__…`; where the default is\n*inherited*, \
                 it is the first issuer's value.\n"
            );
        }
        text.push_str("| setting | value | default | notes | meaning |\n|---|---|---|---|---|\n");
        for row in section.rows {
            let variable = row.resolve_name(None).variable();
            let [value, default, notes] = [row.values(), row.default_for_people(), row.notes()];
            let _ = writeln!(text, "| `{variable}` | {value} | {default} | {notes} | {} |", row.summary);
        }
    }
    text
}

/// One line per setting: its variable, values and default.
#[must_use]
pub fn plain(service: ServiceSections) -> String {
    let mut text = String::new();
    for row in service.all().flat_map(|section| section.rows) {
        for variable in row.variables() {
            let _ = writeln!(text, "{variable:<56} {:<34} default: {}", row.values(), row.default_for_people());
        }
    }
    text.replace('`', "")
}

impl Row {
    fn values(&self) -> String {
        let one = match self.bounds {
            Some(bounds) => format!("{} to {} {}", bounds.min, bounds.max, bounds.unit).trim_end().to_owned(),
            None if self.shape.words.is_empty() => self.shape.kind.to_owned(),
            None => format!("`{}`", self.shape.words.join("` or `")),
        };
        if self.shape.list { format!("list: {one}") } else { one }
    }

    fn default_for_people(&self) -> String {
        let default = match (self.default_text, self.default) {
            (Some(text), _) => text.to_owned(),
            (None, Some(value)) => format!("`{value}`"),
            (None, None) if self.shape.optional => "none".to_owned(),
            (None, None) => "required".to_owned(),
        };
        if self.inherited { format!("{default}, *inherited*") } else { default }
    }

    fn notes(&self) -> String {
        let notes = [(self.shape.secret, "secret"), (self.reloaded, "reloaded")];
        notes.into_iter().filter_map(|(applies, note)| applies.then_some(note)).collect::<Vec<_>>().join(", ")
    }
}
