//! Typed statements: the only form in which services send SQL (AUTHZ-07).
//!
//! In: the text of a statement and its arguments, in a macro. Out: a value that a transaction or
//! [`Database`](super::Database) takes. `sqlx` checks the statement against the schema,
//! [`CheckedText`] checks what it may do, and the kernel binds the tenant as `$1`. Values are bound,
//! so that they are data whatever they contain (INPUT-07).
//!
//! `sqlx` takes literals only, so each text that the kernel puts around a statement is written
//! twice: for `sqlx` and for the check. If the two differ, the executor refuses the statement.

use sqlx::{
    Postgres,
    postgres::PgArguments,
    query::{Map, Query},
};

use super::{Lockable, Next, text_check::CheckedText};
use crate::model::TenantId;

// `offset 0`: otherwise the planner may evaluate the policy of a table before the tenant is set.
pub(super) const READ_HEAD: &str =
    "with t as materialized (select set_config('app.tenant_id', $1::uuid::text, true)::uuid as tenant)
             select q.* from t, lateral (";
pub(super) const READ_TAIL: &str = " offset 0) q";
pub(super) const INPUTS_HEAD: &str =
    "with t as materialized (select set_config('app.tenant_id', $1::uuid::text, true)::uuid as tenant)
             select q.*, (select jsonb_build_object('fingerprint', encode(k.fingerprint, 'hex'), 'status', k.status,
                                                    'body', k.body, 'location', k.location)
                          from palisade.stored_response(t.tenant, $2, $3, $4, $5, $6) k) as \"stored: _\"
             from t, lateral (";
pub(super) const CREATE_HEAD: &str =
    "with t as materialized (select set_config('app.tenant_id', $1::uuid::text, true)::uuid as tenant), ";
pub(super) const CREATE_TAIL: &str = " select palisade.record_change(t.tenant, $2) from t";

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident $(<$f:ident>)? = $query:ty;)+) => {$(
        $(#[$doc])*
        pub struct $name $(<$f>)? {
            pub(super) query: $query,
            pub(super) text: CheckedText,
            pub(super) tenant: TenantId,
        }

        impl $(<$f>)? $name $(<$f>)? {
            /// For the macro of this statement. A query with another text than `text` does not run.
            #[doc(hidden)]
            pub fn __new(query: $query, text: CheckedText, tenant: TenantId) -> Self {
                Self { query, text, tenant }
            }
        }

        impl $(<$f>)? std::fmt::Debug for $name $(<$f>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).field("text", &self.text).finish_non_exhaustive()
            }
        }
    )+};
}

statements! {
    /// A `select` in a transaction.
    Select<F> = Map<'static, Postgres, F, PgArguments>;
    /// A whole read in one message.
    Read<F> = Map<'static, Postgres, F, PgArguments>;
    /// An `insert` in a transaction.
    Insert = Query<'static, Postgres, PgArguments>;
    /// An `insert` that returns its row.
    InsertReturning<F> = Map<'static, Postgres, F, PgArguments>;
    /// A whole creation in one message.
    Create = Query<'static, Postgres, PgArguments>;
}

/// An `update` or `delete` of the row of an object permit.
pub struct Update<R: Lockable> {
    pub(super) query: Query<'static, Postgres, PgArguments>,
    pub(super) text: CheckedText,
    pub(super) tenant: TenantId,
    pub(super) id: R::Id,
}

/// An `update` that stores the result of a transition.
pub struct Transition<R: Lockable> {
    pub(super) update: Update<R>,
    /// The transaction of the transition.
    pub(super) transaction: u64,
}

impl<R: Lockable> Update<R> {
    /// For the macro of this statement.
    #[doc(hidden)]
    pub fn __new(
        query: Query<'static, Postgres, PgArguments>,
        text: CheckedText,
        (tenant, id): (TenantId, R::Id),
    ) -> Self {
        Self { query, text, tenant, id }
    }
}

impl<R: Lockable> Transition<R> {
    /// For the macro of this statement.
    #[doc(hidden)]
    pub fn __new(
        query: Query<'static, Postgres, PgArguments>,
        text: CheckedText,
        (tenant, next): (TenantId, &Next<R>),
    ) -> Self {
        Self { update: Update { query, text, tenant, id: next.id }, transaction: next.transaction }
    }
}

/// A constant with the checked text. A `const` block would not be evaluated in code that nothing
/// calls. The macros below read the tenant once, so that the tenant of a statement is the one that it
/// binds.
#[doc(hidden)]
#[macro_export]
macro_rules! __statement {
    ($kind:ident, $usage:ident, $bound:ident, [$first:literal $(+ $rest:literal)*], $query:expr) => {{
        const __TEXT: $crate::store::__macro::CheckedText = $crate::store::__macro::CheckedText::new(
            $crate::store::__macro::Use::$usage,
            concat!($first $(, $rest)*),
        );
        $crate::store::__macro::$kind::__new($query, __TEXT, $bound)
    }};
}

/// A statement in the transaction `$tx`, with its tenant as `$1`.
#[doc(hidden)]
#[macro_export]
macro_rules! __in_transaction {
    ($kind:ident, $usage:ident, $tx:expr, $query:ident, [$($row:path)?], [$first:literal $(+ $rest:literal)*],
     [$($args:tt)*]) => {{
        let tenant: $crate::model::TenantId = $tx.tenant();
        $crate::__statement!($kind, $usage, tenant, [$first $(+ $rest)*],
            $crate::store::__macro::sqlx::$query!($($row,)? $first $(+ $rest)*, tenant.uuid(), $($args)*))
    }};
}

/// `select!(tx, Row, "select … where tenant_id = $1 …", arguments from $2…)`.
#[macro_export]
macro_rules! select {
    ($tx:expr, $row:path, $first:literal $(+ $rest:literal)* $(, $($args:tt)*)?) => {
        $crate::__in_transaction!(Select, Select, $tx, query_as, [$row], [$first $(+ $rest)*], [$($($args)*)?])
    };
}

/// `insert!(tx, "insert into … values ($1, …)", arguments from $2…)`.
#[macro_export]
macro_rules! insert {
    ($tx:expr, $first:literal $(+ $rest:literal)* $(, $($args:tt)*)?) => {
        $crate::__in_transaction!(Insert, Insert, $tx, query, [], [$first $(+ $rest)*], [$($($args)*)?])
    };
}

/// `insert_returning!(tx, Row, "insert into … values ($1, …) returning …", arguments from $2…)`.
#[macro_export]
macro_rules! insert_returning {
    ($tx:expr, $row:path, $first:literal $(+ $rest:literal)* $(, $($args:tt)*)?) => {
        $crate::__in_transaction!(InsertReturning, Insert, $tx, query_as, [$row], [$first $(+ $rest)*], [$($($args)*)?])
    };
}

/// `update!(object_permit, "update … where tenant_id = $1 and id = $2", arguments from $3…)`: a
/// change of the row of the permit, other than its `status`. Also for `delete`.
#[macro_export]
macro_rules! update {
    ($permit:expr, $first:literal $(+ $rest:literal)* $(, $($args:tt)*)?) => {{
        let permit: &$crate::store::__macro::ObjectPermit<'_, _, _> = $permit;
        let row = (permit.tenant(), permit.id());
        $crate::__statement!(Update, Change, row, [$first $(+ $rest)*],
            $crate::store::__macro::sqlx::query!($first $(+ $rest)*, row.0.uuid(), $crate::model::ObjectId::__uuid(&row.1), $($($args)*)?))
    }};
}

/// `transition!(object_permit, next, "update … set status = $3, … where tenant_id = $1 and id = $2
/// and status = $4", arguments from $5…)`: the row of the permit gets the state of `next`, a
/// [`Next`](crate::store::Next).
#[macro_export]
macro_rules! transition {
    ($permit:expr, $next:expr, $first:literal $(+ $rest:literal)* $(, $($args:tt)*)?) => {{
        let permit: &$crate::store::__macro::ObjectPermit<'_, _, _> = $permit;
        let next: &$crate::store::__macro::Next<_> = $next;
        let (tenant, id) = (permit.tenant(), permit.id());
        let transition = (tenant, next);
        $crate::__statement!(Transition, Transition, transition, [$first $(+ $rest)*],
            $crate::store::__macro::sqlx::query!(
                $first $(+ $rest)*, tenant.uuid(), $crate::model::ObjectId::__uuid(&id), next.to().as_str(), next.from().as_str(),
                $($($args)*)?))
    }};
}

/// `read_one!(permit, Row, "select … where tenant_id = t.tenant and …", arguments from $2…)`: a
/// whole read in one message. `read_one` and `read_page` of [`Database`](crate::store::Database)
/// take it.
#[macro_export]
macro_rules! read_one {
    ($permit:expr, $row:path, $first:literal $(+ $rest:literal)* $(, $($args:tt)*)?) => {{
        let tenant: $crate::model::TenantId = $permit.tenant();
        $crate::__statement!(Read, Read, tenant, [$first $(+ $rest)*],
            $crate::store::__macro::sqlx::query_as!(
                $row,
                "with t as materialized (select set_config('app.tenant_id', $1::uuid::text, true)::uuid as tenant)
             select q.* from t, lateral (" + $first $(+ $rest)* + " offset 0) q",
                tenant.uuid(), $($($args)*)?))
    }};
}

/// As [`read_one!`], with the stored response of the idempotency key in `lookup`, a
/// [`KeyLookup`](crate::store::KeyLookup). The row has a field `stored:
/// Option<Json<StoredColumns>>`. Arguments begin at `$7`.
#[macro_export]
macro_rules! read_inputs {
    ($permit:expr, $lookup:expr, $row:path, $first:literal $(+ $rest:literal)* $(, $($args:tt)*)?) => {{
        let lookup: &$crate::store::KeyLookup<'_> = $lookup;
        let tenant: $crate::model::TenantId = $permit.tenant();
        $crate::__statement!(Read, Inputs, tenant, [$first $(+ $rest)*],
            $crate::store::__macro::sqlx::query_as!(
                $row,
                "with t as materialized (select set_config('app.tenant_id', $1::uuid::text, true)::uuid as tenant)
             select q.*, (select jsonb_build_object('fingerprint', encode(k.fingerprint, 'hex'), 'status', k.status,
                                                    'body', k.body, 'location', k.location)
                          from palisade.stored_response(t.tenant, $2, $3, $4, $5, $6) k) as \"stored: _\"
             from t, lateral (" + $first $(+ $rest)* + " offset 0) q",
                tenant.uuid(), lookup.subject(), lookup.client(), lookup.operation(), lookup.key(),
                lookup.at(), $($($args)*)?))
    }};
}

/// `create!(permit, &record, "o as (insert into … select t.tenant, … from t), …", arguments from
/// $3…)`: a whole creation in one message, with audit event and stored response. `record` is a
/// [`CreateRecord`](crate::store::CreateRecord).
#[macro_export]
macro_rules! create {
    ($permit:expr, $record:expr, $first:literal $(+ $rest:literal)* $(, $($args:tt)*)?) => {{
        let record: &$crate::store::CreateRecord<'_> = $record;
        let tenant: $crate::model::TenantId = $permit.tenant();
        $crate::__statement!(Create, Create, tenant, [$first $(+ $rest)*],
            $crate::store::__macro::sqlx::query!(
                "with t as materialized (select set_config('app.tenant_id', $1::uuid::text, true)::uuid as tenant), "
                + $first $(+ $rest)*
                + " select palisade.record_change(t.tenant, $2) from t",
                tenant.uuid(), record.json() as _, $($($args)*)?))
    }};
}
