//! Free text of the service.

palisade::texts! {
    /// Free text on an order.
    Note, 500 with line feeds;
    /// The reference of a payment in another system, such as a bank statement.
    Reference, 100;
    /// The reason for a refund.
    Reason, 200;
}
