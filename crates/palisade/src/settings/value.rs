//! Types that a setting can have, and how each is parsed and described.

use std::{
    collections::BTreeSet, convert::Infallible, fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc,
    time::Duration,
};

use secrecy::SecretString;
use url::Url;

use super::{
    CertificateName, ClaimMatch, ClaimPath, Dpop, OnStaleFeed, Origin, Profile, ProxyHeader, Rename, Risk, SameSite,
    ScopeName, SignatureAlgorithm, Template, TlsVersion, row::Row,
};
use crate::{
    crypto::{IndexKeys, KeyProvider, MacKey, MasterKeyset, Pepper},
    model::{Network, ServiceRight, TenantId},
    telemetry::{LogFilter, LogFormat},
};

/// What the table says about a type.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// A noun: "URL", "number".
    pub kind: &'static str,
    /// The only words that are accepted, if there are any.
    pub words: &'static [&'static str],
    /// Whether several values can be given, separated by commas.
    pub list: bool,
    /// Whether the setting may be absent.
    pub optional: bool,
    /// Whether the value is secret: never shown, and reported where it was read (SECRET-05).
    pub secret: bool,
}

impl Shape {
    const fn of(kind: &'static str) -> Self {
        Self { kind, words: &[], list: false, optional: false, secret: false }
    }

    const fn words(words: &'static [&'static str]) -> Self {
        Self { words, ..Self::of("word") }
    }

    fn expected(&self) -> String {
        format!("expected `{}`", self.words.join("` or `"))
    }

    const fn secret(kind: &'static str) -> Self {
        Self { secret: true, ..Self::of(kind) }
    }
}

/// A type that a setting can have.
pub trait Value: Sized {
    /// What the table says about the type.
    const SHAPE: Shape;

    /// Parses the text of a setting.
    ///
    /// # Errors
    /// What is expected. It never quotes a secret.
    fn parse(text: &str, row: &Row) -> Result<Self, String>;

    /// The value of an absent setting; `None` if it is required.
    #[must_use]
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const SHAPE: Shape = Shape { optional: true, ..T::SHAPE };

    fn parse(text: &str, row: &Row) -> Result<Self, String> {
        T::parse(text, row).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Value> Value for Vec<T> {
    const SHAPE: Shape = Shape { list: true, optional: true, ..T::SHAPE };

    fn parse(text: &str, row: &Row) -> Result<Self, String> {
        text.split(',').map(|word| T::parse(word.trim(), row)).collect()
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

impl<T: Value + Ord> Value for BTreeSet<T> {
    const SHAPE: Shape = <Vec<T> as Value>::SHAPE;

    fn parse(text: &str, row: &Row) -> Result<Self, String> {
        <Vec<T> as Value>::parse(text, row).map(|values| values.into_iter().collect())
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

/// A number within the bounds of its row.
fn number<T: FromStr>(text: &str, row: &Row) -> Result<T, String> {
    let Some(bounds) = row.bounds else { return text.parse().map_err(|_| "must be a number".to_owned()) };
    let parsed = [text, bounds.min, bounds.max].map(str::parse::<f64>);
    let inside = matches!(parsed, [Ok(value), Ok(min), Ok(max)] if (min..=max).contains(&value));
    let value = text.parse().ok().filter(|_| inside);
    value.ok_or_else(|| format!("must be {} to {} {}", bounds.min, bounds.max, bounds.unit).trim_end().to_owned())
}

macro_rules! numbers {
    ($($type:ty),+) => {$(
        impl Value for $type {
            const SHAPE: Shape = Shape::of("number");

            fn parse(text: &str, row: &Row) -> Result<Self, String> {
                number(text, row)
            }
        }
    )+};
}

numbers!(u32, i64, usize, f64);

impl Value for Duration {
    const SHAPE: Shape = Shape::of("number");

    fn parse(text: &str, row: &Row) -> Result<Self, String> {
        let count = number(text, row)?;
        Ok(match row.bounds.map(|bounds| bounds.unit) {
            Some("days") => Self::from_hours(24 * count),
            Some("hours") => Self::from_hours(count),
            Some("minutes") => Self::from_mins(count),
            Some("s") => Self::from_secs(count),
            _ => Self::from_millis(count),
        })
    }
}

macro_rules! words {
    ($($type:ident { $($word:literal => $value:expr),+ })+) => {$(
        impl Value for $type {
            const SHAPE: Shape = Shape::words(&[$($word),+]);

            fn parse(text: &str, _: &Row) -> Result<Self, String> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(Self::SHAPE.expected()),
                }
            }
        }
    )+};
}

words! {
    bool { "true" => true, "false" => false }
    Profile { "production" => Self::Production, "development" => Self::Development }
    TlsVersion { "1.3" => Self::V1_3, "1.2" => Self::V1_2 }
    OnStaleFeed { "refuse" => Self::Refuse, "serve" => Self::Serve }
    SameSite { "lax" => Self::Lax, "strict" => Self::Strict }
    Dpop { "off" => Self::Off, "optional" => Self::Optional, "required" => Self::Required }
    KeyProvider { "keyset" => Self::Keyset, "vault" => Self::Vault }
    LogFormat { "json" => Self::Json, "text" => Self::Text }
    ServiceRight { "metrics" => Self::Metrics, "incidents" => Self::Incidents, "tenants" => Self::Tenants }
}

impl Value for Risk {
    const SHAPE: Shape = Shape::words(&Self::WORDS);

    fn parse(text: &str, _: &Row) -> Result<Self, String> {
        let word = Self::WORDS.into_iter().find(|word| *word == text);
        word.map(Self).ok_or_else(|| format!("`{text}`: {}", Self::SHAPE.expected()))
    }
}

impl Value for SignatureAlgorithm {
    const SHAPE: Shape = Shape::words(&Self::WORDS);

    fn parse(text: &str, _: &Row) -> Result<Self, String> {
        Self::find(text).ok_or_else(|| format!("`{text}`: {}", Self::SHAPE.expected()))
    }
}

impl Value for ProxyHeader {
    const SHAPE: Shape = Shape::words(&["x-forwarded-for", "forwarded"]);

    /// Names of header fields are compared without regard to case.
    fn parse(text: &str, _: &Row) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err(Self::SHAPE.expected()),
        }
    }
}

macro_rules! texts {
    ($($shape:ident $kind:literal: $type:ty = $parse:expr;)+) => {$(
        impl Value for $type {
            const SHAPE: Shape = Shape::$shape($kind);

            fn parse(text: &str, _: &Row) -> Result<Self, String> {
                ($parse)(text).map_err(|error| error.to_string())
            }
        }
    )+};
}

/// Parses, and says what is expected if that fails.
fn parse<T: FromStr<Err: Display>>(expected: &'static str) -> impl Fn(&str) -> Result<T, String> {
    move |text| text.parse().map_err(|error| format!("{error}; expected {expected}"))
}

texts! {
    of "text": String = |text: &str| Ok::<_, Infallible>(text.into());
    of "file": PathBuf = |text: &str| Ok::<_, Infallible>(text.into());
    of "claim or JSON pointer": ClaimPath = str::parse::<ClaimPath>;
    of "name=name": Rename<String> = str::parse::<Rename<String>>;
    of "name=UUID": Rename<TenantId> = str::parse::<Rename<TenantId>>;
    of "text with `{…}`": Template = str::parse::<Template>;
    of "claim=value": ClaimMatch = str::parse::<ClaimMatch>;
    of "subject alternative name": CertificateName = str::parse::<CertificateName>;
    of "origin": Origin = str::parse::<Origin>;
    of "network or address": Network = str::parse::<Network>;
    of "address and port": SocketAddr = parse("an address and a port, such as `127.0.0.1:8080`");
    of "URL": Url = parse("a URL, such as `https://example.com`");
    of "scope": ScopeName = |text: &str| Ok::<_, Infallible>(ScopeName(text.into()));
    of "UUID": TenantId = parse("the UUID of a tenant");
    of "directives": LogFilter = parse("directives, such as `info,sqlx=warn`");
    secret "text": SecretString = |text: &str| Ok::<_, Infallible>(text.into());
    secret "key": MacKey = MacKey::from_base64;
    secret "key": Pepper = Pepper::from_base64;
    secret "keyset": Arc<MasterKeyset> = |text| MasterKeyset::from_text(text).map(Arc::new);
    secret "keyset": Arc<IndexKeys> = |text| IndexKeys::from_text(text).map(Arc::new);
}
