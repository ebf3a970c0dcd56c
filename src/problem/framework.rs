//! Errors that poem and poem-openapi make themselves, as problems of ours.

use std::{error::Error as StdError, io};

use poem::error::{MethodNotAllowedError, NotFoundError, ReadBodyError};
use poem_openapi::error::{ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError};

use super::{Kind, Problem};
use crate::telemetry::repeats::coalesced;

/// The problem that stands for a framework error. Its text never leaves: it is logged if it is our fault.
pub(crate) fn from_framework(error: poem::Error) -> Problem {
    let error = match error.downcast::<Problem>() {
        Ok(problem) => return problem,
        Err(error) => error,
    };
    if let Some(param) = error.downcast_ref::<ParseParamError>() {
        return Problem::new(Kind::InvalidInput).at(param.name, "invalid");
    }
    if let Some(path) = error.downcast_ref::<ParsePathError>() {
        return Problem::new(Kind::InvalidInput).at(path.name, "invalid");
    }
    if error.is::<NotFoundError>() {
        return Problem::new(Kind::NotFound);
    }
    if error.is::<MethodNotAllowedError>() {
        return Problem::new(Kind::MethodNotAllowed);
    }
    if error.is::<ContentTypeError>() {
        return Problem::new(Kind::UnsupportedMediaType);
    }
    if error.is::<ParseRequestPayloadError>() {
        return Problem::new(Kind::InvalidInput);
    }
    if let Some(ReadBodyError::Io(io)) = error.downcast_ref() {
        return body_error(io);
    }
    let status = error.status();
    if status.is_server_error() {
        coalesced!(error, "unexpected framework error", %error);
    }
    Problem::new(Kind::of_status(status))
}

/// Why a body could not be read, from the kinds that [`crate::edge`] gives its errors.
fn body_error(error: &io::Error) -> Problem {
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = source {
        match current.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::FileTooLarge) => return Problem::new(Kind::PayloadTooLarge),
            Some(io::ErrorKind::TimedOut) => return Problem::new(Kind::RequestTimeout),
            _ => {}
        }
        source = match current.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    Problem::new(Kind::Malformed)
}
