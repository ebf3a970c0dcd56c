//! Pure types and rules: what an order is, whoever asks for it over whatever wire.
//!
//! Nothing here does I/O or knows HTTP, SQL or JSON Web Tokens. A value of one of
//! these types is valid: it is parsed once, at the boundary, and not checked again.

mod api_key;
mod audit;
mod clock;
mod customer;
mod ids;
mod invoice;
mod measure;
mod money;
mod network;
mod order;
mod personal;
mod product;
mod quota;
mod revocation;
mod text;
mod text_enum;

pub use api_key::ApiKey;
pub use audit::{AuditEvent, AuditSeal};
pub use clock::Clock;
pub use customer::{Customer, CustomerChange, CustomerData, ErasableCustomer, FieldChange, SealedData};
pub use ids::{ApiKeyId, AuditEventId, CustomerId, InvoiceId, OrderId, PaymentId, RefundId, TenantId, TenantObject};
pub use invoice::{BillingError, Invoice, InvoiceLine, InvoiceStatus, MAX_PAYMENTS, MAX_REFUNDS, Payment, Refund};
pub use measure::{InForce, Measure};
pub use money::{Currency, Money, MoneyError};
pub use network::Network;
pub use order::{
    MAX_LINES, MAX_QUANTITY, NewOrder, NewOrderError, NewOrderLine, Order, OrderLine, OrderStatus, Quantity,
    ShippingSpeed, TransitionError,
};
pub use personal::{Address, BankAccount, Email, PersonalDataError, Phone, TaxId};
pub use product::{Product, Sku};
pub use quota::QuotaName;
pub use revocation::{Revocation, RevocationKind};
pub use text::{Name, Note, Reason, Reference, TextError};
pub(crate) use text::{is_hidden, is_shaping};
pub use text_enum::UnknownValue;
