//! A connection whose every statement is a span (LOG-04). The store gives out no other.

use std::fmt;

use futures_util::{Stream, future::BoxFuture, stream, stream::BoxStream};
use sqlx::{
    Database, Describe, Either, Execute, Executor, PgConnection, Postgres, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tracing::{Instrument as _, Span};

use crate::telemetry::trace::inside;

/// A connection on which a statement is sent.
pub(super) struct Traced<'c>(pub(super) &'c mut PgConnection);

/// A query whose text was looked at.
struct Known {
    sql: SqlStr,
    arguments: Result<Option<PgArguments>, BoxDynError>,
    statement: Option<PgStatement>,
    persistent: bool,
}

impl Known {
    fn new<'q>(mut query: impl Execute<'q, Postgres>) -> Self {
        let (arguments, statement) = (query.take_arguments(), query.statement().cloned());
        Self { arguments, statement, persistent: query.persistent(), sql: query.sql() }
    }

    /// Texts of statements are the code's, never a caller's: values go beside them.
    fn span(&self) -> Span {
        let span = inside!(
            "statement",
            otel.name = tracing::field::Empty,
            otel.kind = "client",
            db.system.name = "postgresql",
            db.query.text = tracing::field::Empty
        );
        if !span.is_disabled() {
            let sql = self.sql.as_str();
            span.record("otel.name", summary(sql));
            span.record("db.query.text", sql);
        }
        span
    }
}

impl Execute<'_, Postgres> for Known {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.statement.as_ref()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        std::mem::replace(&mut self.arguments, Ok(None))
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

impl<'c> Executor<'c> for Traced<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let query = Known::new(query);
        let span = query.span();
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
        let query = Known::new(query);
        let span = query.span();
        Box::pin(self.0.fetch_optional(query).instrument(span))
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

impl fmt::Debug for Traced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Traced")
    }
}

/// The first word of a statement, and the table or function that follows: `select order_documents`.
fn summary(sql: &str) -> String {
    let mut words = sql.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    let verb = words.next().unwrap_or_default();
    let of = sql.split_ascii_whitespace().zip(sql.split_ascii_whitespace().skip(1));
    let named = of.filter(|(before, _)| ["from", "into", "update"].contains(before)).map(|(_, name)| name);
    let name = named.map(|name| name.split('(').next().unwrap_or_default()).find(|name| name.len() > 1);
    format!("{verb} {}", name.or_else(|| words.next()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn log_04_a_statement_is_called_by_its_verb_and_its_table() {
        for (sql, called) in [
            ("select a, b\n from read_order($1, $2)", "select read_order"),
            ("select note_audit_event($1)", "select note_audit_event"),
            ("with o as (\n insert into orders (id) select $1) select 1 from o", "with orders"),
            ("update orders set status = $3", "update orders"),
            ("", " "),
        ] {
            assert_eq!(summary(sql), called);
        }
    }
}
