//! Executor that runs a statement only if its text was checked.
//!
//! In: a connection and the check of a text. Out: the connection for `sqlx` queries with that text,
//! each with its tracing span. [`crate::store`] runs all statements of services through it.

use std::fmt;

use futures_util::{future::BoxFuture, stream, stream::BoxStream};
use sqlx::{
    Database, Describe, Either, Execute, Executor, Postgres, SqlStr,
    postgres::{PgArguments, PgQueryResult, PgRow, PgTypeInfo},
};

use super::tracing_executor::{TracingExecutor, unpack};

/// A connection for one checked statement. `is_checked` compares the text of a query.
pub(crate) struct CheckedExecutor<'c, C> {
    pub(crate) connection: TracingExecutor<'c>,
    pub(crate) is_checked: C,
}

impl<C: Fn(&str) -> bool> CheckedExecutor<'_, C> {
    fn check<'q>(&self, query: impl Execute<'q, Postgres>) -> Result<(SqlStr, Option<PgArguments>), sqlx::Error> {
        let query = unpack(query)?;
        if (self.is_checked)(query.0.as_str()) { Ok(query) } else { Err(refused()) }
    }
}

fn refused() -> sqlx::Error {
    sqlx::Error::Configuration("the text of the statement is not the checked one".into())
}

impl<'c, C: Fn(&str) -> bool + Send + 'c> Executor<'c> for CheckedExecutor<'c, C> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.check(query) {
            Ok(query) => self.connection.fetch_many(query),
            Err(error) => Box::pin(stream::iter([Err(error)])),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.check(query) {
            Ok(query) => self.connection.fetch_optional(query),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn prepare_with<'e>(
        self,
        _: SqlStr,
        _: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<<Postgres as Database>::Statement, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(std::future::ready(Err(refused())))
    }

    fn describe<'e>(self, _: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(std::future::ready(Err(refused())))
    }
}

impl<C> fmt::Debug for CheckedExecutor<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckedExecutor")
    }
}
