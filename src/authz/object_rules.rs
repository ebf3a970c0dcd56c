//! Object rules: the state that each action requires of the object it changes (AUTHZ-04).
//!
//! [`Permit::for_object`](super::Permit::for_object) applies them to the loaded object, after it
//! has compared tenants. A permit cannot be limited to an object type without a rule here.

use super::{
    Change,
    actions::{
        CancelOrder, CreateInvoice, CreatePayment, CreateRefund, EraseCustomer, FulfilOrder, RevokeApiKey,
        RotateApiKey, UpdateCustomer, VoidInvoice,
    },
};
use crate::domain::{ApiKey, CustomerRef, Invoice, InvoiceStatus, Order, Payment};

/// The rule of action `Self` for an object of type `R`.
pub trait ObjectRule<R>: Change {
    /// Whether the object's state allows the action.
    fn state_allows(object: &R) -> bool;
}

macro_rules! rules {
    ($($action:ident on $object:ident if |$o:ident| $allowed:expr;)+) => {$(
        impl ObjectRule<$object> for $action {
            fn state_allows($o: &$object) -> bool {
                $allowed
            }
        }
    )+};
}

rules! {
    RotateApiKey on ApiKey if |key| key.revoked_at.is_none();
    RevokeApiKey on ApiKey if |_key| true;
    UpdateCustomer on CustomerRef if |_customer| true;
    EraseCustomer on CustomerRef if |_customer| true;
    CancelOrder on Order if |order| order.status.cancel().is_ok();
    // Cancelling an order voids its invoice.
    CancelOrder on Invoice if |invoice| invoice.can_be_voided();
    FulfilOrder on Order if |order| order.status.fulfil().is_ok();
    CreateInvoice on Order if |order| order.status.invoice().is_ok();
    CreatePayment on Invoice if |invoice| invoice.status == InvoiceStatus::Open;
    VoidInvoice on Invoice if |invoice| invoice.can_be_voided();
    CreateRefund on Payment if |payment| payment.refundable().is_ok_and(|left| left.amount() > 0);
}
