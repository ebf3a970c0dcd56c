//! Keys of sealed rows, as services change them (CRYPTO-06, CRYPTO-08).
//!
//! In: the permit of a locked object, and its row by table and id. Creations write the key with
//! `create!`; rotation and destruction are in [`maintenance`](super::maintenance). The row is
//! locked first and its key second, everywhere.

use uuid::Uuid;

use super::{Lockable, ObjectPermit, WriteTx};
use crate::{
    authz::Change,
    db::{DbError, TracingExecutor},
};

impl<A: Change, K> WriteTx<A, K> {
    /// Records the version of the index key with which all blind indexes of a changed row are
    /// computed.
    pub async fn set_index_key<R: Lockable>(
        &self,
        permit: &ObjectPermit<'_, A, R>,
        (table, row): (&str, Uuid),
        index_key: u16,
    ) -> Result<(), DbError> {
        self.check_object(permit)?;
        let done = sqlx::query!(
            "update palisade.row_keys set index_key = $4 where tenant_id = $1 and sealed_table = $2 and row_id = $3",
            permit.tenant().uuid(),
            table,
            row,
            i32::from(index_key)
        )
        .execute(TracingExecutor(&mut *self.open.connection().await))
        .await?;
        DbError::unless(done.rows_affected() == 1)
    }

    /// Deletes the key of an erased row. Copies of the row, such as backups, do not open any more.
    pub async fn delete_row_key<R: Lockable>(
        &self,
        permit: &ObjectPermit<'_, A, R>,
        (table, row): (&str, Uuid),
    ) -> Result<(), DbError> {
        self.check_object(permit)?;
        let done = sqlx::query!(
            "delete from palisade.row_keys where tenant_id = $1 and sealed_table = $2 and row_id = $3",
            permit.tenant().uuid(),
            table,
            row
        )
        .execute(TracingExecutor(&mut *self.open.connection().await))
        .await?;
        DbError::unless(done.rows_affected() == 1)
    }
}
