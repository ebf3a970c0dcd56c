//! Stands in for `sessions.rs` without the feature `sessions`: there is nothing to set.

use super::{Issuer, Reader};

/// There are no browser sessions.
#[derive(Clone, Debug)]
pub struct Sessions;

impl Sessions {
    #[allow(clippy::unnecessary_wraps, reason = "the signature of the real module")]
    pub(super) fn read(_: &mut Reader) -> Option<Self> {
        Some(Self)
    }

    #[allow(clippy::unused_self, reason = "the signature of the real module")]
    pub(crate) fn has_client_of(&self, _: &Issuer) -> bool {
        false
    }

    #[allow(clippy::unused_self, reason = "the signature of the real module")]
    pub(super) fn credential_quota(&self) -> u32 {
        1
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        model::{Rights, RoleTable},
        settings::{ServiceSections, Settings},
    };

    #[test]
    fn secret_03_settings_of_sessions_are_unknown_without_the_feature() {
        let names = ["APP_SESSIONS__CLIENT_ID", "APP_SESSIONS__IDLE_MINUTES"];
        let variables = names.map(|name| (name.to_owned(), "1".to_owned())).into();
        let sections = ServiceSections::of::<()>(Rights { scopes: &[], roles: RoleTable(&[]) });
        let faults = Settings::from_variables(variables, sections).unwrap_err().0;
        let of_feature =
            faults.iter().filter(|fault| fault.message.contains("needs the feature `sessions` of palisade"));
        assert_eq!(of_feature.map(|fault| fault.variable.as_str()).collect::<Vec<_>>(), names);
    }
}
