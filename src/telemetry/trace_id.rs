use std::fmt;

use crate::crypto;

tokio::task_local! {
    static CURRENT: TraceId;
}

/// The name of one request in logs and problem bodies: 16 random bytes in the form of a
/// W3C Trace Context `trace-id` (32 lower-case hexadecimal digits).
///
/// Always made here and never taken from the caller, who could otherwise confuse two requests in the logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceId(String);

impl TraceId {
    /// A new, random one.
    #[must_use]
    pub fn generate() -> Self {
        // Only a label: with a broken generator all requests share one, and nothing is less safe.
        let bytes: [u8; 16] = crypto::random().unwrap_or_default();
        Self(crypto::hex(&bytes))
    }

    /// The 32 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Runs `work` as part of the request this names.
    pub(crate) async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// The trace id of the request being served, if any is.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
