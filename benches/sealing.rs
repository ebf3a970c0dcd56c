//! What sealed fields cost: `cargo bench --bench sealing`. Prints nanoseconds for each operation; a list of a hundred
//! customers opens a hundred keys and up to five hundred fields.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::sync::Arc;

use divan::{Bencher, black_box};
use futures_util::FutureExt as _;
use service::{
    crypto::{DataKey, IndexKeys, MasterKeys, MasterKeyset, RowKey, Sealed, WrappedDataKey},
    domain::{Address, Email},
};
use uuid::Uuid;

const KEYSET: &str = "1:QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=";
const TENANT: Uuid = Uuid::from_u128(1);
const ROW: Uuid = Uuid::from_u128(2);

fn main() {
    divan::main();
}

struct Keys {
    master: MasterKeys,
    stored: WrappedDataKey,
    data: DataKey,
    row: RowKey,
}

fn keys() -> Keys {
    let master = MasterKeys::from_keyset(Arc::new(MasterKeyset::from_text(KEYSET).unwrap()));
    // A keyset waits for nothing.
    let (data, stored) = master.generate(TENANT, 1).now_or_never().unwrap().unwrap();
    let row = data.new_row_key("customers", ROW).unwrap();
    Keys { master, stored, data, row }
}

fn email() -> Email {
    "someone.of.some-length@mail.example.com".parse().unwrap()
}

#[divan::bench]
fn seal_an_email(bencher: Bencher) {
    let (keys, email) = (keys(), email());
    bencher.bench_local(|| Sealed::new(black_box(&email), &keys.row));
}

/// Opens it and masks it: only a permit gives the right to open one in plain text.
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
fn make_the_key_of_a_row(bencher: Bencher) {
    let keys = keys();
    bencher.bench_local(|| keys.data.new_row_key("customers", black_box(ROW)));
}

#[divan::bench]
fn open_the_key_of_a_row(bencher: Bencher) {
    let keys = keys();
    let wrapped = keys.row.wrapped().to_vec();
    bencher.with_inputs(|| wrapped.clone()).bench_values(|wrapped| keys.data.open_row_key("customers", ROW, wrapped));
}

#[divan::bench]
fn open_the_key_of_a_tenant(bencher: Bencher) {
    let keys = keys();
    bencher.bench_local(|| keys.master.open(TENANT, black_box(&keys.stored)).now_or_never());
}

#[divan::bench]
fn index_an_email(bencher: Bencher) {
    let (indexes, email) = (IndexKeys::from_text(KEYSET).unwrap(), email());
    bencher.bench_local(|| indexes.index(TENANT, black_box(&email)));
}
