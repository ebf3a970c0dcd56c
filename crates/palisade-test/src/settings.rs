//! The settings of the production profile, which tests of settings and secrets change one by one.

/// The settings that the production profile requires, and no others.
pub const PRODUCTION_SETTINGS: [(&str, &str); 10] = [
    ("APP_DATABASE__WRITER_URL", "postgres://app_writer:0123456789abcdef@db.example/app?sslmode=verify-full"),
    ("APP_DATABASE__READER_URL", "postgres://app_reader:fedcba9876543210@db.example/app?sslmode=verify-full"),
    ("APP_DATABASE__AUTHN_URL", "postgres://app_authn:0123456789fedcba@db.example/app?sslmode=verify-full"),
    ("APP_DATABASE__KEYS_URL", "postgres://app_keys:fedcba0123456789@db.example/app?sslmode=verify-full"),
    ("APP_KEYS__MASTER", "1:QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8="),
    ("APP_KEYS__INDEX", "1:YGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8="),
    ("APP_OIDC__ISSUER", "https://login.example.com"),
    ("APP_OIDC__AUDIENCE", "api://orders"),
    ("APP_SECRETS__MAC_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ("APP_SECRETS__PEPPER", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="),
];
