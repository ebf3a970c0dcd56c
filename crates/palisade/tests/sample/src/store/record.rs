//! Notes as they are stored: e-mail address and phone sealed with the key of the row, the address
//! searchable by a blind index (CRYPTO-02, CRYPTO-06).

use chrono::{DateTime, Utc};
use palisade::{
    authz::{Action, Permit},
    crypto::{BlindIndex, DataKey, IndexKeys, Indexed, RowKey, SealError, Sealable, Sealed},
    model::TenantId,
    store::{Database, DbError, Json, SealedTable as _, parse_stored},
};
use poem_openapi::types::MaybeUndefined;
use uuid::Uuid;

use crate::domain::{Email, Item, NewNote, NoteChange, NoteId, NoteStatus, Phone, Priority, Remark};

palisade::sealed_table! {
    /// The table `notes`.
    NoteTable = "notes", erased "erased_at" "remark";
    Email in "email" as "email_index";
    Phone in "phone";
}

/// Addresses are in lower case already.
impl Indexed for Email {}

/// A stored note with the row key that opens its fields.
#[derive(Debug)]
pub struct Note {
    /// Identifier.
    pub id: NoteId,
    /// Tenant.
    pub tenant: TenantId,
    /// State.
    pub status: NoteStatus,
    /// Items.
    pub items: Vec<Item>,
    /// Priority.
    pub priority: Priority,
    /// Free text.
    pub remark: Option<String>,
    /// E-mail address.
    pub email: Option<Sealed<Email>>,
    /// Telephone number.
    pub phone: Option<Sealed<Phone>>,
    /// Blind index of the e-mail address.
    pub email_index: Option<BlindIndex>,
    /// Version of the index key. A note without an address has one too, so that rotations skip it.
    pub index_key: u16,
    /// Key of the row.
    pub key: RowKey,
    /// `sub` of the principal that created the note.
    pub created_by: String,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// Time of the last change.
    pub updated_at: DateTime<Utc>,
}

impl Note {
    /// Seals a new note with `key`, the key of its row.
    ///
    /// # Errors
    /// The cipher fails.
    pub fn new(
        id: NoteId,
        note: NewNote,
        key: RowKey,
        indexes: &IndexKeys,
        tenant: TenantId,
        created_by: &str,
        now: DateTime<Utc>,
    ) -> Result<Self, SealError> {
        let NewNote { items, priority, remark, email, phone } = note;
        Ok(Self {
            id,
            tenant,
            status: NoteStatus::Draft,
            items,
            priority,
            remark: remark.map(|remark| remark.as_str().to_owned()),
            email: seal(email.as_ref(), &key)?,
            phone: seal(phone.as_ref(), &key)?,
            email_index: email.as_ref().map(|email| indexes.index(tenant.uuid(), email)),
            index_key: indexes.primary(),
            key,
            created_by: created_by.to_owned(),
            created_at: now,
            updated_at: now,
        })
    }

    /// Applies a change. Fields that stay are not opened.
    pub(super) fn change(
        mut self,
        change: &NoteChange,
        indexes: &IndexKeys,
        now: DateTime<Utc>,
    ) -> Result<Self, SealError> {
        let NoteChange { priority, remark, email, phone } = change;
        self.priority = priority.unwrap_or(self.priority);
        if !remark.is_undefined() {
            self.remark = remark.value().map(Remark::as_str).map(str::to_owned);
        }
        if !email.is_undefined() {
            self.email_index = email.value().map(|email| indexes.index(self.tenant.uuid(), email));
            self.index_key = indexes.primary();
        }
        apply(email, &mut self.email, &self.key)?;
        apply(phone, &mut self.phone, &self.key)?;
        self.updated_at = now;
        Ok(self)
    }
}

fn seal<T: Sealable>(value: Option<&T>, key: &RowKey) -> Result<Option<Sealed<T>>, SealError> {
    value.map(|value| Sealed::new(value, key)).transpose()
}

fn apply<T: Sealable>(
    change: &MaybeUndefined<T>,
    field: &mut Option<Sealed<T>>,
    key: &RowKey,
) -> Result<(), SealError> {
    if !change.is_undefined() {
        *field = seal(change.value(), key)?;
    }
    Ok(())
}

/// A row of `notes` joined with its row of `palisade.row_keys`.
#[derive(Clone)]
pub(super) struct NoteRow {
    pub(super) id: Uuid,
    pub(super) status: String,
    pub(super) items: Json<Vec<Item>>,
    pub(super) priority: String,
    pub(super) remark: Option<String>,
    pub(super) email: Option<Vec<u8>>,
    pub(super) phone: Option<Vec<u8>>,
    pub(super) email_index: Option<Vec<u8>>,
    /// `None` if the data keys of the tenant are destroyed.
    pub(super) index_key: Option<i32>,
    /// `None`, as is `wrapped_key`, if the row key is missing.
    pub(super) data_key: Option<i32>,
    pub(super) wrapped_key: Option<Vec<u8>>,
    pub(super) created_by: String,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

impl NoteRow {
    /// Opens the row with the data key that wraps its key, which may have to be fetched.
    pub(super) async fn open(self, database: &Database, permit: &Permit<impl Action>) -> Result<Note, DbError> {
        let data_key = database.data_key(permit, self.data_key_version(permit)?).await?;
        self.open_with(&data_key, permit)
    }

    /// The version of the data key that wraps its key.
    pub(super) fn data_key_version(&self, permit: &Permit<impl Action>) -> Result<i32, DbError> {
        self.data_key.ok_or_else(|| Database::missing_row_key::<NoteTable>(permit, self.id))
    }

    /// Opens the row with a data key at hand.
    pub(super) fn open_with(self, data_key: &DataKey, permit: &Permit<impl Action>) -> Result<Note, DbError> {
        let index_key = self.index_key.ok_or(DbError::KeyDestroyed)?;
        Ok(Note {
            id: NoteId::from_uuid(self.id),
            tenant: permit.tenant(),
            status: parse_stored(&self.status)?,
            items: self.items.0,
            priority: parse_stored(&self.priority)?,
            remark: self.remark,
            email: self.email.map(Sealed::from_stored),
            phone: self.phone.map(Sealed::from_stored),
            email_index: self.email_index.map(BlindIndex::from_stored),
            index_key: u16::try_from(index_key).map_err(DbError::broken)?,
            key: data_key.unwrap_row_key(NoteTable::TABLE, self.id, self.wrapped_key.unwrap_or_default())?,
            created_by: self.created_by,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}
