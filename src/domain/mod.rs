//! Pure types and rules: what an order is, whoever asks for it over whatever wire.
//!
//! Nothing here does I/O or knows HTTP, SQL or JSON Web Tokens. A value of one of
//! these types is valid: it is parsed once, at the boundary, and not checked again.

mod clock;
mod ids;
mod money;
mod order;
mod product;
mod text;

pub use clock::Clock;
pub use ids::{OrderId, TenantId};
pub use money::{Currency, Money, MoneyError};
pub use order::{
    MAX_LINES, MAX_QUANTITY, NewOrder, NewOrderError, NewOrderLine, Order, OrderLine, OrderStatus, Quantity,
    ShippingSpeed, TransitionError,
};
pub use product::{Product, Sku};
pub use text::{Note, TextError};
