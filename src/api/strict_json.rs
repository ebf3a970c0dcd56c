//! The only way a body comes in (controls INPUT-01, INPUT-03, INPUT-05).

use std::sync::Arc;

use poem::{FromRequest, Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    payload::{Json, Payload},
    registry::{MetaRequest, MetaSchemaRef, Registry},
    types::{ParseFromJSON, Type},
};
use serde_json::Value;

use super::schema::Schemas;
use crate::{
    json,
    problem::{Kind, Problem, from_framework},
    telemetry::event,
};

/// A JSON body: UTF-8, no duplicate keys, nothing after the value, no deeper than 16, and
/// exactly what the published schema of `T` allows.
pub(super) struct StrictJson<T> {
    /// What it says.
    pub(super) value: T,
    /// The same in one fixed form: without white space, members in the order of their names. Two bodies that
    /// say the same are equal in it.
    pub(super) canonical: Vec<u8>,
}

impl<T: Type> Payload for StrictJson<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn check_content_type(content_type: &str) -> bool {
        is_json(content_type)
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<'a, T: ParseFromJSON> ApiExtractor<'a> for StrictJson<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <Self as Payload>::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Json::<T>::request_meta()
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        check_media_type(request)?;
        let bytes = <Vec<u8> as FromRequest>::from_request(request, body).await?;
        let mut value = parse(&bytes)?;
        value.sort_all_objects();
        whole_numbers(&mut value);
        let schemas = request.data::<Arc<Schemas>>().ok_or_else(|| Problem::new(Kind::Internal))?;
        let faults = schemas.check(&T::schema_ref(), &value);
        if !faults.is_empty() {
            return Err(refuse(Problem::new(Kind::InvalidInput).errors(faults)).into());
        }
        // After the check above this fails only if the type wants more than its own schema says.
        let canonical = serde_json::to_vec(&value).map_err(|_| Problem::new(Kind::Internal))?;
        match T::parse_from_json(Some(value)) {
            Ok(value) => Ok(Self { value, canonical }),
            Err(_) => Err(refuse(Problem::new(Kind::InvalidInput).at("", "invalid")).into()),
        }
    }
}

/// The JSON of a body that no published schema speaks of.
pub(super) async fn read_body(request: &mut Request) -> Result<Value, Problem> {
    check_media_type(request)?;
    let bytes = request.take_body().into_vec().await.map_err(|error| from_framework(error.into()))?;
    parse(&bytes)
}

fn check_media_type(request: &Request) -> Result<(), Problem> {
    match request.content_type() {
        Some(media_type) if is_json(media_type) => Ok(()),
        _ => Err(Problem::new(Kind::UnsupportedMediaType)),
    }
}

fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    parts.next().is_some_and(|essence| essence == "application/json")
        && parts.all(|parameter| matches!(parameter.as_str(), "charset=utf-8" | "charset=\"utf-8\""))
}

fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    json::parse(bytes).ok_or_else(|| refuse(Problem::new(Kind::Malformed)))
}

/// `72.0` is the integer 72 (JSON Schema 2020-12, validation section 6.1.1), as far as a floating-point number is exact.
fn whole_numbers(value: &mut Value) {
    /// The greatest integer up to which all are exact (RFC 8259 section 6).
    const EXACT: f64 = 9_007_199_254_740_991.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT);
            // Writing without a fraction and reading again is exact, and needs no conversion that could be wrong.
            if let Some(whole) = whole.and_then(|whole| format!("{whole:.0}").parse::<i64>().ok()) {
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(members) => members.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn refuse(problem: Problem) -> Problem {
    event::input_validation_fail(problem.code(), 1);
    problem
}
