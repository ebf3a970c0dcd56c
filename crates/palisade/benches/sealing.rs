//! Cost of sealed fields: `cargo bench --bench sealing`.
//!
//! Prints the time of each operation. For scale: a list of a hundred customers unwraps a hundred row
//! keys and opens up to five hundred fields.

#![expect(clippy::unwrap_used, reason = "a failure ends the benchmark")]

use std::sync::Arc;

use divan::{Bencher, black_box};
use futures_util::FutureExt as _;
use palisade::crypto::{DataKey, IndexKeys, Indexed, MasterKeys, MasterKeyset, RowKey, Sealed, WrappedDataKey};
use uuid::Uuid;

palisade::personal_data! {
    /// An e-mail address.
    Email, |text| Some(text.to_owned());
}
palisade::personal_data! {
    /// A postal address.
    Address, |text| Some(text.to_owned());
}

palisade::sealed_table! {
    /// A table with sealed columns.
    Customers = "customers";
    Email in "email" as "email_index";
    Address in "address";
}

impl Indexed for Email {}

const KEYSET: &str = "1:QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=";
const TENANT: Uuid = Uuid::from_u128(1);
const ROW: Uuid = Uuid::from_u128(2);

fn main() {
    divan::main();
}

struct Keys {
    master: MasterKeys,
    wrapped_data: WrappedDataKey,
    data: DataKey,
    row: RowKey,
}

fn keys() -> Keys {
    let master = MasterKeys::from_keyset(Arc::new(MasterKeyset::from_text(KEYSET).unwrap()));
    // A master keyset in memory is ready at the first poll.
    let (data, wrapped_data) = master.generate(TENANT, 1).now_or_never().unwrap().unwrap();
    let row = data.new_row_key("customers", ROW).unwrap();
    Keys { master, wrapped_data, data, row }
}

fn email() -> Email {
    "someone.of.some-length@mail.example.com".parse().unwrap()
}

#[divan::bench]
fn seal_an_email(bencher: Bencher) {
    let keys = keys();
    let email = email();
    bencher.bench_local(|| Sealed::new(black_box(&email), &keys.row));
}

/// Masks the value after opening it: opening to plain text requires a permit.
#[divan::bench]
fn open_and_mask_an_email(bencher: Bencher) {
    let keys = keys();
    let sealed = Sealed::new(&email(), &keys.row).unwrap();
    bencher.bench_local(|| black_box(&sealed).masked(&keys.row));
}

#[divan::bench]
fn open_and_mask_an_address_of_300(bencher: Bencher) {
    let keys = keys();
    let address: Address = "Some Street 1".repeat(23).parse().unwrap();
    let sealed = Sealed::new(&address, &keys.row).unwrap();
    bencher.bench_local(|| black_box(&sealed).masked(&keys.row));
}

#[divan::bench]
fn create_a_row_key(bencher: Bencher) {
    let keys = keys();
    bencher.bench_local(|| keys.data.new_row_key("customers", black_box(ROW)));
}

#[divan::bench]
fn unwrap_a_row_key(bencher: Bencher) {
    let keys = keys();
    let wrapped = keys.row.wrapped().to_vec();
    let unwrap = |wrapped| keys.data.unwrap_row_key("customers", ROW, wrapped);
    bencher.with_inputs(|| wrapped.clone()).bench_values(unwrap);
}

#[divan::bench]
fn unwrap_a_data_key(bencher: Bencher) {
    let keys = keys();
    bencher.bench_local(|| keys.master.unwrap_data_key(TENANT, black_box(&keys.wrapped_data)).now_or_never());
}

#[divan::bench]
fn index_an_email(bencher: Bencher) {
    let indexes = IndexKeys::from_text(KEYSET).unwrap();
    let email = email();
    bencher.bench_local(|| indexes.index(TENANT, black_box(&email)));
}
