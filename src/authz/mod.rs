//! What a caller may do: principal + operation + object → [`Permit`].
//!
//! [`matrix`] says per operation who may call it and with which scope, [`policy`] what each
//! role may do; [`authorize`] decides, before a handler's first argument is read. What a
//! decision leaves behind is a [`Permit`]: a value nobody else can make, and which every
//! function of [`crate::store`] asks for. Forgetting the check therefore does not compile.

pub mod actions;
mod decision;
pub mod internal;
pub mod matrix;
mod narrow;
mod permit;
pub mod policy;
mod scope;

pub use actions::{Action, Change};
pub use decision::{Denied, Grant, authorize};
pub use narrow::Narrow;
pub use permit::{MaySee, ObjectPermit, Permit, Refusal};
