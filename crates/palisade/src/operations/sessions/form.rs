//! What issuers send in their own form. The body of a back-channel logout is a form with one parameter
//! (OpenID Connect Back-Channel Logout 1.0 section 2.5), and a callback may have further parameters
//! (RFC 6749 section 4.1.2).
//!
//! The only body that is no JSON: the issuer chooses the format. It counts as strict, since it takes
//! exactly one parameter of a limited length.

use poem::{FromRequest, Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, Registry},
    types::Type as _,
};

use super::schema::LogoutForm;
use crate::{
    http::{strict_json, strictness},
    problem::{Kind, Problem},
};

const FORM: &str = "application/x-www-form-urlencoded";
/// Longest logout token, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The logout token of a form.
pub(super) struct LogoutTokenForm(pub(super) String);

impl<'a> ApiExtractor<'a> for LogoutTokenForm {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject, ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        LogoutForm::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content = vec![MetaMediaType { content_type: FORM, schema: LogoutForm::schema_ref() }];
        Some(MetaRequest { description: None, content, required: true })
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![strict_json::MARK]
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let essence = request.content_type().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case(FORM) {
            return Err(Problem::new(Kind::UnsupportedMediaType).into());
        }
        let bytes = <Vec<u8> as FromRequest>::from_request(request, body).await?;
        let mut parameters = url::form_urlencoded::parse(&bytes);
        match (parameters.next(), parameters.next()) {
            (Some((name, token)), None) if name == "logout_token" && token.len() <= MAX_TOKEN_BYTES => {
                Ok(Self(token.into_owned()))
            }
            _ => Err(Problem::new(Kind::InvalidInput).at("logout_token", "invalid").into()),
        }
    }
}

/// Argument of a handler that ignores query parameters which it does not declare.
pub(super) struct IgnoresParameters;

impl<'a> ApiExtractor<'a> for IgnoresParameters {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn security_schemes() -> Vec<&'static str> {
        vec![strictness::OPEN_QUERY]
    }

    async fn from_request(_: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        Ok(Self)
    }
}
