//! Actions: one type per operation that touches data (AUTHZ-04).
//!
//! The action is the type parameter of [`Permit`](super::Permit), so the compiler rejects a permit
//! for one operation where another is demanded. [`Change`] marks the actions that may write.

mod sealed {
    /// Prevents other crates from implementing [`Action`](super::Action).
    pub trait Sealed {}
}

/// An operation as a type. Only this file implements it.
pub trait Action: sealed::Sealed + Send + Sync + 'static {
    /// The `operationId` in the [matrix](super::matrix).
    const OPERATION: &'static str;
}

/// An action that may write. A write transaction requires a permit for such an action.
pub trait Change: Action {}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $operation:literal $(: $change:ident)?;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl Action for $name {
            const OPERATION: &'static str = $operation;
        }
        $(impl $change for $name {})?
    )+};
}

actions! {
    /// Read the caller's own identity.
    GetMe = "getMe";
    /// List products.
    ListProducts = "listProducts";
    /// Read one product.
    GetProduct = "getProduct";
    /// Create or replace a product.
    PutProduct = "putProduct": Change;
    /// List customers.
    ListCustomers = "listCustomers";
    /// Read one customer.
    GetCustomer = "getCustomer";
    /// Create a customer.
    CreateCustomer = "createCustomer": Change;
    /// Update a customer.
    UpdateCustomer = "updateCustomer": Change;
    /// Erase a customer.
    EraseCustomer = "eraseCustomer": Change;
    /// List orders.
    ListOrders = "listOrders";
    /// Read one order.
    GetOrder = "getOrder";
    /// Place an order.
    CreateOrder = "createOrder": Change;
    /// Cancel an order.
    CancelOrder = "cancelOrder": Change;
    /// Mark an order as fulfilled.
    FulfilOrder = "fulfilOrder": Change;
    /// Issue the invoice of an order.
    CreateInvoice = "createInvoice": Change;
    /// List invoices.
    ListInvoices = "listInvoices";
    /// Read one invoice.
    GetInvoice = "getInvoice";
    /// Record a payment.
    CreatePayment = "createPayment": Change;
    /// Void an invoice.
    VoidInvoice = "voidInvoice": Change;
    /// Create an API key.
    CreateApiKey = "createApiKey": Change;
    /// List API keys.
    ListApiKeys = "listApiKeys";
    /// Create an API key that replaces another.
    RotateApiKey = "rotateApiKey": Change;
    /// Revoke an API key.
    RevokeApiKey = "revokeApiKey": Change;
    /// Read the audit trail.
    ListAuditEvents = "listAuditEvents";
    /// Export the tenant's books as a file.
    CreateExport = "createExport";
    /// Refund a payment.
    CreateRefund = "createRefund": Change;
}
