//! The endpoints of an issuer for sign-ins of people (AUTHN-14), and calls of them.
//!
//! The discovery of keys reads them from the same document. [`crate::authn`]'s sessions use them.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, header};
use hyper::body::Bytes;
use reqwest::Request;
use serde::Deserialize;
use url::Url;

use super::{DiscoveryError, JwksCache};
use crate::outbound::OutboundError;

/// The endpoints for sign-ins of people (OpenID Connect Discovery 1.0 section 3).
#[derive(Clone, Debug, Deserialize)]
pub(in crate::authn) struct Endpoints {
    pub(in crate::authn) authorization_endpoint: Option<String>,
    pub(in crate::authn) token_endpoint: Option<String>,
    pub(in crate::authn) end_session_endpoint: Option<String>,
    pub(in crate::authn) token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    pub(in crate::authn) authorization_response_iss_parameter_supported: bool,
}

impl JwksCache {
    /// The endpoints of the last discovery; fetched now if there was none.
    pub(in crate::authn) async fn endpoints(self: &Arc<Self>) -> Option<Arc<Endpoints>> {
        if self.endpoints.load().is_none() {
            self.refresh_on_demand().await;
        }
        self.endpoints.load_full()
    }

    /// Posts a form to an endpoint of the issuer, within the limits of all fetches.
    pub(in crate::authn) async fn post_form(
        &self,
        url: &str,
        basic: Option<(&str, &str)>,
        form: String,
    ) -> Result<(http::StatusCode, Bytes), DiscoveryError> {
        let mut request = Request::new(Method::POST, Url::parse(url).map_err(|_| OutboundError::Url(url.to_owned()))?);
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some((id, secret)) = basic {
            let credentials = STANDARD.encode(format!("{id}:{secret}"));
            let value = HeaderValue::try_from(format!("Basic {credentials}"));
            headers.extend(value.ok().map(|value| (header::AUTHORIZATION, value)));
        }
        *request.body_mut() = Some(form.into());
        let (head, body) = self.client.exchange(request).await?.into_parts();
        Ok((head.status, body))
    }
}
