//! Sealed tables: which columns of a service's table are sealed, and indexed (CRYPTO-02, CRYPTO-05).
//!
//! In: the list that a service declares with [`sealed_table!`](crate::sealed_table). Out: what
//! [`maintenance`](super::maintenance) needs to rotate keys without code of the service. The texts
//! of its statements are built here once. The compiler checks the names in them.

use std::{fmt::Write as _, sync::Arc};

/// A table with sealed columns. Its row keys are in `palisade.row_keys`.
///
/// It has the columns `tenant_id` and `id`, and the trigger `after delete` with
/// `palisade.delete_row_key`.
pub trait SealedTable: 'static {
    /// Its name.
    const TABLE: &'static str;
    /// All its columns of the type `palisade.sealed`.
    const COLUMNS: &'static [SealedColumn];
    /// What the erasure of a row changes besides. Without it there is no
    /// [`WriteTx::erase`](super::WriteTx::erase), and a restore does not erase rows again: those
    /// without a key stay, undecryptable.
    const ERASURE: Option<Erasure> = None;
}

/// How a row of a sealed table is erased, besides its sealed columns and blind indexes.
#[derive(Clone, Copy, Debug)]
pub struct Erasure {
    /// The column that gets the time of the erasure, null until then.
    pub(super) time: &'static str,
    /// The columns in plain text that become null.
    pub(super) cleared: &'static [&'static str],
}

impl Erasure {
    /// An erasure that sets the column `time`, and clears the others.
    ///
    /// # Panics
    /// As [`SealedColumn::new`].
    #[must_use]
    pub const fn new(time: &'static str, cleared: &'static [&'static str]) -> Self {
        let mut names = cleared;
        while let [name, rest @ ..] = names {
            assert!(is_name(name), "the name of a column has `a` to `z` and `_` only");
            names = rest;
        }
        assert!(is_name(time), "the name of a column has `a` to `z` and `_` only");
        Self { time, cleared }
    }
}

/// Erases a row and deletes its key, if it has one: `$1` tenant, `$2` id, `$3` time. The row is
/// locked.
pub(super) fn erase_statement<T: SealedTable>(Erasure { time, cleared }: Erasure) -> String {
    const { assert!(is_name(T::TABLE), "the name of a table has `a` to `z` and `_` only") };
    let table = T::TABLE;
    let sealed = T::COLUMNS.iter().flat_map(|column| [Some(column.name), column.index.map(|index| index.name)]);
    let names = sealed.flatten().chain(cleared.iter().copied());
    let cleared = names.map(|name| format!(r#""{name}" = null"#)).collect::<Vec<_>>().join(", ");
    format!(
        r#"with k as (delete from palisade.row_keys
                      where tenant_id = $1 and sealed_table = '{table}' and row_id = $2)
           update public."{table}" set {cleared}, "{time}" = $3 where tenant_id = $1 and id = $2"#
    )
}

/// A column of the type `palisade.sealed`.
#[derive(Clone, Copy, Debug)]
pub struct SealedColumn {
    pub(super) name: &'static str,
    pub(super) index: Option<IndexColumn>,
}

/// The blind index of a sealed column.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexColumn {
    name: &'static str,
    /// The characters that the index ignores.
    pub(super) ignored: &'static [char],
}

impl SealedColumn {
    /// A column of this name.
    ///
    /// # Panics
    /// The name has other characters than `a` to `z` and `_`. In a constant, this does not compile.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        assert!(is_name(name), "the name of a column has `a` to `z` and `_` only");
        Self { name, index: None }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Adds a blind index in the column `name` of the type `palisade.blind_index`. `ignored` is
    /// that of [`Indexed`](crate::crypto::Indexed).
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub const fn indexed(self, name: &'static str, ignored: &'static [char]) -> Self {
        assert!(is_name(name), "the name of a column has `a` to `z` and `_` only");
        Self { index: Some(IndexColumn { name, ignored }), ..self }
    }
}

/// Names that need no quotes, as `palisade.row_keys` accepts them.
const fn is_name(name: &str) -> bool {
    let [b'a'..=b'z', rest @ ..] = name.as_bytes() else { return false };
    let mut rest = rest;
    while let [b'a'..=b'z' | b'_', next @ ..] = rest {
        rest = next;
    }
    rest.is_empty() && name.len() <= 63
}

/// A sealed table with the statements of a rotation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RegisteredTable {
    pub(super) name: &'static str,
    pub(super) columns: &'static [SealedColumn],
    /// Locks and reads rows: `$1` tenant, `$2` ids, `$3` newest data key, `$4` primary index key.
    /// Answers with id, data key, wrapped row key and the sealed columns.
    pub(super) select: Arc<str>,
    #[cfg_attr(not(feature = "backup"), expect(dead_code, reason = "only a restore reads it"))]
    pub(super) erasure: Option<Erasure>,
    /// Stores a row: `$1` tenant, `$2` id, `$3` data key, `$4` wrapped row key, `$5` index key, then
    /// each sealed column, followed by its blind index.
    pub(super) update: Arc<str>,
}

impl RegisteredTable {
    /// The table `T`.
    #[must_use]
    pub fn of<T: SealedTable>() -> Self {
        const { assert!(is_name(T::TABLE), "the name of a table has `a` to `z` and `_` only") };
        let table = T::TABLE;
        let mut read = String::new();
        let mut assigned = Vec::new();
        for SealedColumn { name, index } in T::COLUMNS {
            // Writing to a String cannot fail.
            let _ = write!(read, r#", r."{name}""#);
            assigned.push(*name);
            assigned.extend(index.map(|index| index.name));
        }
        let assignments: Vec<_> = (6..).zip(assigned).map(|(n, name)| format!(r#""{name}" = ${n}"#)).collect();
        let assignments = assignments.join(", ");
        // Locks each row first, then its key.
        let select = format!(
            r#"select r.id, k.data_key, k.wrapped{read}
               from public."{table}" r
               join palisade.row_keys k on k.tenant_id = r.tenant_id and k.sealed_table = '{table}' and k.row_id = r.id
               where r.tenant_id = $1 and r.id = any ($2)
                 and (k.data_key < $3 or k.data_key = $3 and k.index_key is distinct from $4)
               order by r.id for no key update of r, k"#
        );
        let update = format!(
            r#"with k as (update palisade.row_keys set data_key = $3, wrapped = $4, index_key = $5
                          where tenant_id = $1 and sealed_table = '{table}' and row_id = $2)
               update public."{table}" set {assignments} where tenant_id = $1 and id = $2"#
        );
        let (select, update) = (select.into(), update.into());
        Self { name: table, columns: T::COLUMNS, erasure: T::ERASURE, select, update }
    }

    /// The statements of a rotation, for a test of their plans.
    #[must_use]
    pub fn statements(&self) -> [&str; 2] {
        [&self.select, &self.update]
    }

    /// Whether a row has a blind index, and so an index key.
    pub(super) fn is_indexed(&self) -> bool {
        self.columns.iter().any(|column| column.index.is_some())
    }

    /// What the database must have, such as `persons.mail (sealed)`, as the start check names it.
    pub(super) fn parts(&self) -> impl Iterator<Item = String> {
        let table = self.name;
        let columns = self.columns.iter().flat_map(move |SealedColumn { name, index }| {
            let index = index.map(|index| format!("{table}.{} (blind_index)", index.name));
            std::iter::once(format!("{table}.{name} (sealed)")).chain(index)
        });
        columns.chain([format!("{table} (delete_row_key)")])
    }
}

/// Declares a [`SealedTable`] and all its sealed columns: `Type in "column"`, and `as "column_index"`
/// for a blind index. `erased` names the column with the time of an erasure, then the columns in
/// plain text that an erasure clears.
///
/// The types are those of [`personal_data!`](crate::personal_data); they become
/// [`Sealable`](crate::crypto::Sealable). An indexed one implements
/// [`Indexed`](crate::crypto::Indexed) besides.
#[macro_export]
macro_rules! sealed_table {
    (
        $(#[$doc:meta])*
        $table:ident = $name:literal $(, erased $time:literal $($cleared:literal)*)?;
        $($type:ident in $column:literal $(as $index:literal)?;)+
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $table {}

        impl $crate::store::SealedTable for $table {
            const TABLE: &'static str = $name;
            const COLUMNS: &'static [$crate::store::SealedColumn] = &[$(
                $crate::store::SealedColumn::new($column)
                    $(.indexed($index, <$type as $crate::crypto::Indexed>::IGNORED))?
            ),+];
            $(const ERASURE: Option<$crate::store::Erasure> = Some($crate::store::Erasure::new($time, &[$($cleared),*]));)?
        }

        $(impl $crate::crypto::Sealable for $type {
            const TABLE: &'static str = $name;
            const COLUMN: &'static str = $column;
        })+
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Persons {}

    impl SealedTable for Persons {
        const TABLE: &'static str = "persons";
        const COLUMNS: &'static [SealedColumn] =
            &[SealedColumn::new("mail").indexed("mail_index", &[]), SealedColumn::new("fax")];
    }

    #[test]
    fn crypto_05_rotation_reads_and_stores_every_registered_column() {
        let table = RegisteredTable::of::<Persons>();
        assert!(table.select.contains(r#"k.wrapped, r."mail", r."fax""#), "{}", table.select);
        assert!(table.update.contains(r#"set "mail" = $6, "mail_index" = $7, "fax" = $8 where"#), "{}", table.update);
        let parts: Vec<_> = table.parts().collect();
        let expected = ["persons.mail (sealed)", "persons.mail_index (blind_index)", "persons.fax (sealed)"];
        assert_eq!(parts, [&expected[..], &["persons (delete_row_key)"]].concat());
    }

    #[test]
    fn crypto_05_names_of_sealed_tables_need_no_quotes() {
        assert!(is_name("tax_id") && is_name(&"a".repeat(63)));
        for bad in ["", "_a", "a b", "a\"b", "a'b", "A", "a1", "ä", &"a".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
