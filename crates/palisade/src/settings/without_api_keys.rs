//! Stands in for `api_keys.rs` without the feature `api_keys`: there is nothing to set.

use super::Reader;

/// There are no API keys.
#[derive(Clone, Debug)]
pub struct ApiKeys;

impl ApiKeys {
    #[allow(clippy::unnecessary_wraps, reason = "the signature of the real module")]
    pub(super) fn read(_: &mut Reader) -> Option<Self> {
        Some(Self)
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::{ServiceSections, Settings};

    #[test]
    fn secret_03_settings_of_api_keys_are_unknown_without_the_feature() {
        let names = ["APP_API_KEYS__CACHE_SECONDS", "APP_SECRETS__PEPPER"];
        let variables = names.map(|name| (name.to_owned(), "1".to_owned())).into();
        let faults = Settings::from_variables(variables, ServiceSections::NONE).unwrap_err().0;
        let of_feature =
            faults.iter().filter(|fault| fault.message.contains("needs the feature `api_keys` of palisade"));
        assert_eq!(of_feature.map(|fault| fault.variable.as_str()).collect::<Vec<_>>(), names);
    }
}
