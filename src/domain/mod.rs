//! Pure types and rules of the business: orders, invoices, money, customers, credentials.
//!
//! Nothing here does I/O or knows HTTP, SQL or JSON Web Tokens. A value of one of these types is
//! valid: it is parsed once, at the boundary, and not checked again. Every layer above uses them.

mod api_key;
mod audit;
mod clock;
mod customer;
mod ids;
mod invoice;
mod money;
mod network;
mod order;
mod overrides;
mod personal;
mod product;
mod quota;
mod revocation;
mod rights;
mod text;
mod text_enum;

pub use api_key::ApiKey;
pub use audit::{AuditEvent, AuditSeal};
pub use clock::Clock;
pub use customer::{CustomerChange, CustomerData, CustomerRef, FieldChange};
pub use ids::{ApiKeyId, AuditEventId, CustomerId, InvoiceId, OrderId, PaymentId, RefundId, TenantId, TenantObject};
pub use invoice::{BillingError, Invoice, InvoiceLine, InvoiceStatus, MAX_PAYMENTS, MAX_REFUNDS, Payment, Refund};
pub use money::{Currency, Money, MoneyError};
pub use network::Network;
pub use order::{
    MAX_LINES, MAX_QUANTITY, NewOrder, NewOrderError, NewOrderLine, Order, OrderLine, OrderStatus, Quantity,
    ShippingSpeed, TransitionError,
};
pub use overrides::{ActiveOverride, Override};
pub use personal::{Address, BankAccount, Email, PersonalDataError, Phone, TaxId};
pub use product::{Product, Sku};
pub use quota::QuotaName;
pub use revocation::{Revocation, RevocationKind};
pub use rights::{Role, Scope, ServiceRight, UnknownRole, UnknownScope};
pub use text::{Name, Note, Reason, Reference, TextError};
pub(crate) use text::{is_control_or_invisible, is_joiner_or_selector};
pub use text_enum::UnknownValue;
