use super::{
    Change,
    actions::{
        CancelOrder, CreateInvoice, CreatePayment, CreateRefund, EraseCustomer, FulfilOrder, RevokeApiKey,
        RotateApiKey, UpdateCustomer, VoidInvoice,
    },
};
use crate::domain::{ApiKey, Customer, ErasableCustomer, Invoice, InvoiceStatus, Order, Payment};

/// What action `Self` asks of an object it changes (control AUTHZ-04). A permit is narrowed to an object only
/// if there is such a rule; see [`Permit::narrow`](super::Permit::narrow).
pub trait Narrow<R>: Change {
    /// Whether the object's state allows the action.
    fn state_allows(object: &R) -> bool;
}

macro_rules! rules {
    ($($action:ident on $object:ident if |$o:ident| $allowed:expr;)+) => {$(
        impl Narrow<$object> for $action {
            fn state_allows($o: &$object) -> bool {
                $allowed
            }
        }
    )+};
}

rules! {
    RotateApiKey on ApiKey if |key| key.revoked_at.is_none();
    RevokeApiKey on ApiKey if |_key| true;
    UpdateCustomer on Customer if |_customer| true;
    EraseCustomer on ErasableCustomer if |_customer| true;
    CancelOrder on Order if |order| order.status.cancel().is_ok();
    // The invoice of an order that is cancelled is taken back with it.
    CancelOrder on Invoice if |invoice| invoice.can_be_voided();
    FulfilOrder on Order if |order| order.status.fulfil().is_ok();
    CreateInvoice on Order if |order| order.status.invoice().is_ok();
    CreatePayment on Invoice if |invoice| invoice.status == InvoiceStatus::Open;
    VoidInvoice on Invoice if |invoice| invoice.can_be_voided();
    CreateRefund on Payment if |payment| payment.left().is_ok_and(|left| left.amount() > 0);
}
