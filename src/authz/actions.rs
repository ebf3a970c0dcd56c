//! One type per operation that touches data, so that a permit for one cannot stand for another.

mod sealed {
    /// Keeps other crates from declaring actions of their own.
    pub trait Sealed {}
}

/// An operation as a type. Implemented in this file only.
pub trait Action: sealed::Sealed + Send + Sync + 'static {
    /// The operation's name in the [matrix](super::matrix).
    const OPERATION: &'static str;
}

/// An action that may write. Only a permit for one opens a writing transaction.
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
    /// See who one is.
    GetMe = "getMe";
    /// Read the catalogue.
    ListProducts = "listProducts";
    /// Read one product.
    GetProduct = "getProduct";
    /// Add a product, or change one.
    PutProduct = "putProduct": Change;
    /// Read customers.
    ListCustomers = "listCustomers";
    /// Read one customer.
    GetCustomer = "getCustomer";
    /// Add a customer.
    CreateCustomer = "createCustomer": Change;
    /// Change a customer.
    UpdateCustomer = "updateCustomer": Change;
    /// Forget a customer.
    EraseCustomer = "eraseCustomer": Change;
    /// Read orders.
    ListOrders = "listOrders";
    /// Read one order.
    GetOrder = "getOrder";
    /// Place an order.
    CreateOrder = "createOrder": Change;
    /// Cancel an order.
    CancelOrder = "cancelOrder": Change;
    /// Say that an order was delivered.
    FulfilOrder = "fulfilOrder": Change;
    /// Issue the invoice of an order.
    CreateInvoice = "createInvoice": Change;
    /// Read invoices.
    ListInvoices = "listInvoices";
    /// Read one invoice.
    GetInvoice = "getInvoice";
    /// Record a payment.
    CreatePayment = "createPayment": Change;
    /// Take an invoice back.
    VoidInvoice = "voidInvoice": Change;
    /// Make an API key.
    CreateApiKey = "createApiKey": Change;
    /// See the API keys there are.
    ListApiKeys = "listApiKeys";
    /// Make an API key that takes the place of another.
    RotateApiKey = "rotateApiKey": Change;
    /// End an API key.
    RevokeApiKey = "revokeApiKey": Change;
    /// Read the audit trail.
    ListAuditEvents = "listAuditEvents";
    /// Take the books out as a file.
    CreateExport = "createExport";
    /// Give money back.
    CreateRefund = "createRefund": Change;
}
