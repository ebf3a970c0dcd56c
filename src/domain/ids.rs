//! Identifiers of the service's objects.

palisade::ids! {
    /// An order.
    OrderId,
    /// A customer of a tenant.
    CustomerId,
    /// An invoice.
    InvoiceId,
    /// A payment.
    PaymentId,
    /// A refund.
    RefundId,
}
