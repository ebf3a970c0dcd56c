//! Maps errors of poem and poem-openapi to problems (RFC 9457; home of INPUT-08 with [`Problem`]).
//!
//! Called wherever a handler or the router returns `poem::Error`. Texts of framework errors never
//! reach the caller.

use std::{error::Error as StdError, io};

use poem::error::{MethodNotAllowedError, NotFoundError, ReadBodyError};
use poem_openapi::error::{ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError};

use crate::{
    problem::{Kind, Problem},
    telemetry::repeats::coalesced,
};

/// The problem for a framework error. Its text is logged if the status is 5xx, and never sent.
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

/// The problem for a body that could not be read, by the error kinds that [`crate::edge`] sets.
pub(super) fn body_error(error: &io::Error) -> Problem {
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
