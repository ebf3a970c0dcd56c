//! Executor that makes a tracing span of each SQL statement (LOG-04).
//!
//! In: a connection. Out: the same connection for `sqlx` queries, with a client span around each.
//! The span holds the text of the statement and never its arguments. All queries that serve
//! requests run through it, so that none lacks its span.

use futures_util::{Stream, future::BoxFuture, stream, stream::BoxStream};
use sqlx::{
    Database, Describe, Either, Execute, Executor, PgConnection, Postgres, SqlStr,
    postgres::{PgArguments, PgQueryResult, PgRow, PgTypeInfo},
};
use tracing::{Instrument as _, Span};

use crate::telemetry::trace::child_span;

/// A connection on which each statement is a span.
#[derive(Debug)]
pub(crate) struct TracingExecutor<'c>(pub(crate) &'c mut PgConnection);

/// Takes a query apart, so that its text can be read before it runs.
pub(super) fn unpack<'q>(mut query: impl Execute<'q, Postgres>) -> Result<(SqlStr, Option<PgArguments>), sqlx::Error> {
    let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
    Ok((query.sql(), arguments))
}

/// The span of a statement. Its text is a constant of the code: values of callers are arguments,
/// which the span leaves out.
fn statement_span(sql: &str) -> Span {
    let span = child_span!(
        "statement",
        otel.name = tracing::field::Empty,
        otel.kind = "client",
        db.system.name = "postgresql",
        db.query.text = tracing::field::Empty
    );
    if !span.is_disabled() {
        span.record("otel.name", summarize(sql));
        span.record("db.query.text", sql);
    }
    span
}

impl<'c> Executor<'c> for TracingExecutor<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let query = match unpack(query) {
            Ok(query) => query,
            Err(error) => return Box::pin(stream::once(async { Err(error) })),
        };
        let span = statement_span(query.0.as_str());
        let mut rows = self.0.fetch_many(query);
        Box::pin(stream::poll_fn(move |context| {
            let _in_statement = span.enter();
            Stream::poll_next(rows.as_mut(), context)
        }))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let query = unpack(query)?;
            let span = statement_span(query.0.as_str());
            self.0.fetch_optional(query).instrument(span).await
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<<Postgres as Database>::Statement, sqlx::Error>>
    where
        'c: 'e,
    {
        self.0.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.0.describe(sql)
    }
}

/// The verb of a statement and the first table or function it names: `select orders`.
fn summarize(sql: &str) -> String {
    let mut words = sql.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    let verb = words.next().unwrap_or_default();
    let pairs = sql.split_ascii_whitespace().zip(sql.split_ascii_whitespace().skip(1));
    let objects = pairs.filter(|(keyword, _)| ["from", "into", "update"].contains(keyword)).map(|(_, object)| object);
    let object =
        objects.map(|object| object.split(['(', ')', ',']).next().unwrap_or_default()).find(|name| name.len() > 1);
    format!("{verb} {}", object.or_else(|| words.next()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::summarize;

    #[test]
    fn log_04_span_name_is_verb_and_table() {
        for (sql, name) in [
            ("select a, b\n from read_order($1, $2)", "select read_order"),
            ("select note_audit_event($1)", "select note_audit_event"),
            ("with o as (\n insert into orders (id) select $1) select 1 from o", "with orders"),
            ("with t as (select 1) select q.* from t, lateral (select id from orders) q", "with orders"),
            ("update orders set status = $3", "update orders"),
            ("", " "),
        ] {
            assert_eq!(summarize(sql), name);
        }
    }
}
