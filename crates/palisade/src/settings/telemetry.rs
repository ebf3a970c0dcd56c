//! The collector that receives telemetry (LOG-03, LOG-04).

use super::{Reader, checks};
use crate::telemetry::Otlp;

/// `None` without an endpoint, or if it has a fault.
pub(super) fn read_otlp(r: &mut Reader) -> Option<Otlp> {
    if !r.has_section(&Otlp::SECTION, &Otlp::endpoint) {
        return None;
    }
    let otlp = Otlp::read_rows(r, None)?;
    if let Some(token) = &otlp.token {
        checks::token(&Otlp::token.name(), token, r);
    }
    Some(otlp)
}
