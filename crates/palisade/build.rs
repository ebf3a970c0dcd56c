//! Rebuilds the crate when a migration changes, and checks queries against this crate's `.sqlx`.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-env-changed=PALISADE_PREPARE");
    // `DATABASE_URL` may name the database of a project, which need not have the kernel's tables.
    if std::env::var_os("PALISADE_PREPARE").is_none() {
        println!("cargo:rustc-env=SQLX_OFFLINE=true");
    }
}
