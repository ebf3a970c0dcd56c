//! Object rules of orders and billing: the state that each action requires of the object it changes
//! (control AUTHZ-04 has its home in [`palisade::authz`]).
//!
//! [`Permit::for_object`](palisade::authz::Permit::for_object) applies them to the loaded object.

use palisade::model::State as _;

use super::actions::{
    CancelOrder, CreateInvoice, CreatePayment, CreateRefund, EraseCustomer, FulfilOrder, VoidInvoice,
};
use crate::domain::{CustomerRef, Invoice, InvoiceStatus, Order, OrderStatus, Payment};

palisade::object_rules! {
    EraseCustomer on CustomerRef if |_customer| true;
    CancelOrder on Order if |order| order.status.may_become(OrderStatus::Cancelled);
    // Cancelling an order voids its invoice.
    CancelOrder on Invoice if |invoice| invoice.can_be_voided();
    FulfilOrder on Order if |order| order.status.may_become(OrderStatus::Fulfilled);
    CreateInvoice on Order if |order| order.status.may_become(OrderStatus::Invoiced);
    CreatePayment on Invoice if |invoice| invoice.status == InvoiceStatus::Open;
    // The payment that settles the invoice makes its order paid.
    CreatePayment on Order if |order| order.status == OrderStatus::Invoiced;
    VoidInvoice on Invoice if |invoice| invoice.can_be_voided();
    VoidInvoice on Order if |order| order.status.may_become(OrderStatus::Placed);
    CreateRefund on Payment if |payment| payment.refundable().is_ok_and(|left| left.amount() > 0);
    CreateRefund on Invoice if |invoice| matches!(invoice.status, InvoiceStatus::Open | InvoiceStatus::Paid);
    // The last refund of a paid invoice makes its order refunded.
    CreateRefund on Order if |order| order.status.may_become(OrderStatus::Refunded);
}
