//! Security events for connections that fail (LOG-01): client certificates that do not verify, and
//! malformed HTTP, which ends a connection before there is a request.
//!
//! [`super::listener`] calls these functions, at most once for each connection. The events of one
//! network are coalesced.

use std::{error::Error as StdError, io};

use crate::{
    model::ClientNetwork,
    telemetry::{event, metrics},
};

/// Number of failed accepts in a row after which the listener pauses, whatever their errors.
const MAX_FAILED_ACCEPTS: u32 = 64;

/// Counts failed accepts in a row, so that an error that lasts is logged and does not use up a core.
#[derive(Debug, Default)]
pub(super) struct FailedAccepts(u32);

impl FailedAccepts {
    /// Counts a failed accept, and returns whether to log it and to pause.
    pub(super) fn needs_pause(&mut self, error: &io::Error) -> bool {
        self.0 += 1;
        let pauses = !concerns_one_connection(error) || self.0 >= MAX_FAILED_ACCEPTS;
        if pauses {
            self.0 = 0;
        }
        pauses
    }
}

/// Whether only the connection that `accept` returned this error for has failed. Another error is
/// one of the listener or of the process, such as a lack of file descriptors.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    // accept(2) of Linux returns errors that are pending on the new socket. BSD systems return
    // EINVAL (`InvalidInput`) for a socket that its client has reset already.
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::InvalidInput
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::NotConnected
            | Kind::TimedOut
    )
}

/// Reports a TLS handshake that failed because of the client's certificate.
pub(super) fn report_handshake(error: &io::Error, network: ClientNetwork) {
    let (reason, result) = match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::NoCertificatesPresented) => ("certificate_missing", "missing"),
        Some(rustls::Error::InvalidCertificate(_)) => ("certificate_untrusted", "rejected"),
        _ => {
            tracing::debug!(%error, %network, "TLS handshake failed");
            return;
        }
    };
    metrics::record_authentication("certificate", result);
    event::authn_token_invalid(reason, None, network.address(), None);
}

/// Reports a connection that ended because its client violated HTTP: a request that cannot be
/// parsed, or a flood of HTTP/2 frames such as resets.
pub(super) fn report_violation(error: &(dyn StdError + 'static), network: ClientNetwork) {
    let Some(error) = error.downcast_ref::<hyper::Error>() else { return };
    let is_io = error.source().is_none_or(<dyn StdError>::is::<io::Error>);
    // A client may end its connection with any reason (GOAWAY); the violation would be its own.
    let is_remote =
        error.source().and_then(<dyn StdError>::downcast_ref::<h2::Error>).is_some_and(h2::Error::is_remote);
    let code = if error.is_parse_too_large() {
        "http_head_too_large"
    } else if error.is_parse() {
        "http_syntax"
    } else if !error.is_user() && !is_io && !is_remote {
        "http2_violation"
    } else {
        tracing::debug!(%error, "connection failed");
        return;
    };
    event::malformed_connection(network, code);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_09_errors_of_one_connection_do_not_pause_the_listener() {
        for (errno, expected) in [
            (rustix::io::Errno::CONNABORTED, true),
            (rustix::io::Errno::CONNRESET, true),
            (rustix::io::Errno::INVAL, true),
            (rustix::io::Errno::NETDOWN, true),
            (rustix::io::Errno::MFILE, false),
            (rustix::io::Errno::NFILE, false),
            (rustix::io::Errno::NOBUFS, false),
            (rustix::io::Errno::BADF, false),
        ] {
            assert_eq!(concerns_one_connection(&errno.into()), expected, "{errno}");
            // Every error that lasts pauses it: of each 64 in a row, the last one at the latest.
            let mut failed = FailedAccepts::default();
            let pauses = (0..128).filter(|_| failed.needs_pause(&errno.into())).count();
            assert_eq!(pauses, if expected { 2 } else { 128 }, "{errno}");
        }
    }
}
