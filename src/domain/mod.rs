//! Pure types and rules of the business: orders, invoices, money, customers, products.
//!
//! Nothing here does I/O or knows HTTP, SQL or JSON Web Tokens. A value of one of these types is
//! valid: it is parsed once, at the boundary, and not checked again. Every layer above uses them.

mod customer;
mod ids;
mod invoice;
mod money;
mod order;
mod personal;
mod product;
mod text;

pub use customer::{CustomerChange, CustomerData, CustomerRef, FieldChange};
pub use ids::{CustomerId, InvoiceId, OrderId, PaymentId, RefundId};
pub use invoice::{
    BillingError, Invoice, InvoiceLine, InvoiceStatus, InvoiceSummary, MAX_PAYMENTS, MAX_REFUNDS, Payment, Refund,
};
pub use money::{Currency, Money, MoneyError};
pub use order::{
    MAX_LINES, MAX_QUANTITY, NewOrder, NewOrderError, NewOrderLine, Order, OrderLine, OrderStatus, Quantity,
    ShippingSpeed,
};
pub use personal::{Address, BankAccount, Email, Phone, TaxId};
pub use product::{Product, Sku};
pub use text::{Note, Reason, Reference};
