//! Locked objects, and their changes (AUTHZ-04, INPUT-11).
//!
//! In: a transaction and an id. Out: the object, locked until the transaction ends. A changed row
//! needs an [`ObjectPermit`] for a locked object of the same transaction. A changed state also
//! needs a [`Next`]. A locked object borrows its transaction, so code that uses it after the commit
//! does not compile. It stores the number of its transaction, so another open transaction refuses
//! it before any statement.

use std::{
    fmt,
    marker::PhantomData,
    ops::Deref,
    sync::atomic::{AtomicBool, Ordering},
};

use sqlx::{PgConnection, postgres::PgRow};
use tokio::sync::MappedMutexGuard;

use super::{
    WriteTx,
    audit::AuditRecord,
    statement::{Select, Transition, Update},
    text_check::CheckedText,
    tx::{OpenTransaction, executor},
};
use crate::{
    authz::{Action, Change, ObjectRule, Permit},
    db::DbError,
    model::{AuditObject as _, ObjectId, State, TenantId},
};

/// An object that a transaction can lock and load.
pub trait Lockable: Sized + Send + Sync + 'static {
    /// The type of its identifier.
    type Id: ObjectId;
    /// The type of its state, in the column `status`; [`Stateless`](crate::model::Stateless) if it has
    /// none.
    type State: State;

    /// The identifier, unique in the tenant.
    fn id(&self) -> Self::Id;
    /// The tenant that owns it.
    fn tenant(&self) -> TenantId;
    /// Its state.
    fn state(&self) -> Self::State;
    /// Locks the row, then reads the object.
    fn load(tx: &Loader<'_>, id: Self::Id) -> impl Future<Output = Result<Option<Self>, DbError>> + Send;
}

/// An object that is loaded with the object that it is a part of, under one lock.
pub trait PartOf<W: Lockable>: Lockable {
    /// The identifier of the object that it is a part of.
    fn whole(&self) -> W::Id;
    /// Locks the row, then reads both objects.
    fn load_with(tx: &Loader<'_>, id: Self::Id) -> impl Future<Output = Result<Option<(Self, W)>, DbError>> + Send;
}

/// The transaction as a loader sees it: it can only `select`.
pub struct Loader<'tx> {
    open: &'tx OpenTransaction,
    has_locked: AtomicBool,
}

impl Loader<'_> {
    /// The tenant of the transaction.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.open.tenant()
    }

    /// The connection, for a statement of the kernel that locks a row.
    pub(super) async fn locking_connection(&self) -> Result<MappedMutexGuard<'_, PgConnection>, DbError> {
        self.has_locked.store(true, Ordering::Relaxed);
        self.open.connection().await
    }

    fn note_lock(&self, text: CheckedText) {
        if text.locks() {
            self.has_locked.store(true, Ordering::Relaxed);
        }
    }

    /// Reads the first row of a `select`.
    pub async fn fetch_optional<F, O>(&self, statement: Select<F>) -> Result<Option<O>, DbError>
    where
        F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
        O: Send + Unpin,
    {
        self.note_lock(statement.text);
        self.open.fetch_optional(statement).await
    }

    /// Reads all rows of a `select`.
    pub async fn fetch_all<F, O>(&self, statement: Select<F>) -> Result<Vec<O>, DbError>
    where
        F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
        O: Send + Unpin,
    {
        self.note_lock(statement.text);
        self.open.fetch_all(statement).await
    }
}

/// An object that an open transaction has locked and loaded. [`WriteTx::lock`] makes it.
#[derive(Debug)]
pub struct Locked<'tx, T: Lockable> {
    object: T,
    /// The id that was asked for, whatever the object says later.
    id: T::Id,
    tenant: TenantId,
    transaction: u64,
    open: PhantomData<&'tx ()>,
}

impl<T: Lockable> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: Lockable> Locked<'_, T> {
    /// The object without its lock, for the response.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.object
    }

    /// The transition from the state of the locked row to `to`.
    ///
    /// # Errors
    /// [`DbError::State`] if the table of the states does not allow it.
    pub fn advance(&self, to: T::State) -> Result<Next<T>, DbError> {
        let from = self.object.state();
        if !from.may_become(to) {
            return Err(DbError::State);
        }
        Ok(Next { from, to, id: self.id, transaction: self.transaction })
    }
}

/// The allowed transition of one locked object. [`Locked::advance`] makes it.
pub struct Next<T: Lockable> {
    from: T::State,
    to: T::State,
    pub(super) id: T::Id,
    pub(super) transaction: u64,
}

impl<T: Lockable> Next<T> {
    /// The state of the locked row.
    #[must_use]
    pub fn from(&self) -> T::State {
        self.from
    }

    /// The new state.
    #[must_use]
    pub fn to(&self) -> T::State {
        self.to
    }
}

impl<A: Change> Permit<A> {
    /// Limits the permit to one locked object: the second check, after the fetch (AUTHZ-04).
    ///
    /// Changes of an object demand an [`ObjectPermit`], so a handler cannot skip this check.
    ///
    /// # Errors
    /// [`DbError::OtherTenant`] or [`DbError::State`].
    pub fn for_object<'a, R: Lockable>(&'a self, object: &'a Locked<'_, R>) -> Result<ObjectPermit<'a, A, R>, DbError>
    where
        A: ObjectRule<R>,
    {
        if object.tenant != self.tenant() {
            return Err(DbError::OtherTenant);
        }
        if !A::state_allows(object) {
            return Err(DbError::State);
        }
        Ok(ObjectPermit { permit: self, id: object.id, transaction: object.transaction })
    }
}

/// A permit for one locked object only. [`Permit::for_object`] makes it.
pub struct ObjectPermit<'a, A, R: Lockable> {
    permit: &'a Permit<A>,
    id: R::Id,
    transaction: u64,
}

impl<A: Action, R: Lockable> ObjectPermit<'_, A, R> {
    /// The id of the object that the permit is for.
    #[must_use]
    pub fn id(&self) -> R::Id {
        self.id
    }

    /// The tenant of the permit and of the object.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.permit.tenant()
    }
}

impl<A: Change, K> WriteTx<'_, A, K> {
    /// Locks and loads an object. A concurrent transaction waits, and then sees the changes of this
    /// one.
    ///
    /// # Errors
    /// [`DbError::Misuse`] if its loader locks no row, or loads another object.
    pub async fn lock<T: Lockable>(&self, id: T::Id) -> Result<Option<Locked<'_, T>>, DbError> {
        let loader = Loader { open: &self.open, has_locked: AtomicBool::new(false) };
        let object = T::load(&loader, id).await?;
        object.map(|object| self.locked(&loader, object, id)).transpose()
    }

    /// Locks and loads an object, and the one that it is a part of.
    ///
    /// # Errors
    /// As [`WriteTx::lock`].
    pub async fn lock_with<T: PartOf<W>, W: Lockable>(
        &self,
        id: T::Id,
    ) -> Result<Option<(Locked<'_, T>, Locked<'_, W>)>, DbError> {
        let loader = Loader { open: &self.open, has_locked: AtomicBool::new(false) };
        let Some((part, whole)) = T::load_with(&loader, id).await? else { return Ok(None) };
        let id_of_whole = part.whole();
        Ok(Some((self.locked(&loader, part, id)?, self.locked(&loader, whole, id_of_whole)?)))
    }

    fn locked<T: Lockable>(&self, loader: &Loader<'_>, object: T, id: T::Id) -> Result<Locked<'_, T>, DbError> {
        if !loader.has_locked.load(Ordering::Relaxed) {
            return Err(DbError::Misuse("the loader locked no row"));
        }
        if object.id().__uuid() != id.__uuid() || object.tenant() != self.tenant() {
            return Err(DbError::Misuse("the loader loaded another object"));
        }
        Ok(Locked { object, id, tenant: self.tenant(), transaction: self.open.number, open: PhantomData })
    }

    /// Changes exactly one row: that of the permitted object, other than its state.
    pub async fn change<R: Lockable>(
        &self,
        permit: &ObjectPermit<'_, A, R>,
        statement: Update<R>,
    ) -> Result<(), DbError> {
        self.check_object(permit)?;
        if statement.id.__uuid() != permit.id.__uuid() {
            return Err(DbError::Misuse("the statement is for another object"));
        }
        let mut connection = self.open.for_statement(statement.tenant).await?;
        let done = statement.query.execute(executor(&mut connection, statement.text)).await?;
        if done.rows_affected() == 1 {
            return Ok(());
        }
        // The rows are written, so the transaction must not commit.
        self.open.is_refused.store(true, Ordering::Relaxed);
        Err(DbError::Inconsistent)
    }

    /// Stores the result of a transition of the permitted object: exactly one row.
    pub async fn transition<R: Lockable>(
        &self,
        permit: &ObjectPermit<'_, A, R>,
        statement: Transition<R>,
    ) -> Result<(), DbError> {
        if statement.transaction != permit.transaction || statement.update.id.__uuid() != permit.id.__uuid() {
            return Err(DbError::Misuse("the transition is of another object"));
        }
        self.change(permit, statement.update).await
    }

    /// Adds the audit event of a further changed object to the commit: that of action `B`.
    pub fn also_record<B: ObjectRule<R>, R: Lockable>(&self, permit: &ObjectPermit<'_, A, R>) -> Result<(), DbError> {
        self.check_object(permit)?;
        let record = AuditRecord::new(permit.permit, B::ROW.audit, permit.id.__object());
        self.further.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(record);
        Ok(())
    }

    /// An error unless the object was locked by this transaction.
    pub(super) fn check_object<R: Lockable>(&self, permit: &ObjectPermit<'_, A, R>) -> Result<(), DbError> {
        if permit.transaction == self.open.number {
            return Ok(());
        }
        Err(DbError::Misuse("the object belongs to another transaction"))
    }
}

impl<T: Lockable<State: fmt::Debug>> fmt::Debug for Next<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next")
            .field("from", &self.from)
            .field("to", &self.to)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<A: Action, R: Lockable> fmt::Debug for ObjectPermit<'_, A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectPermit").field("permit", &self.permit).field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Loader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").field("tenant", &self.tenant()).finish_non_exhaustive()
    }
}
