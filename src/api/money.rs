//! Amounts of money in requests and responses: integer minor units and an ISO 4217 currency code.
//!
//! The schemas bound every amount, so that no sum of accepted input overflows (INPUT-09). The
//! conversions to [`Money`] check the currency code.

use palisade::http::text::Text;
use poem_openapi::Object;

use crate::{
    api::formats,
    domain::{Money, MoneyError},
};

/// An amount of money in one currency: an integer number of minor units, never negative, never a
/// fraction.
#[derive(Debug, Object)]
#[oai(rename = "Money")]
pub(super) struct MoneyView {
    /// Amount in minor units of the currency, such as cents: 0 to 9007199254740991 (2^53 - 1).
    #[oai(validator(minimum(value = "0"), maximum(value = "9007199254740991")))]
    pub(super) amount: i64,
    /// Currency code (ISO 4217): three upper-case letters, such as `EUR`.
    pub(super) currency: Text<formats::Currency>,
}

/// Price of one unit. The limit keeps the total of every order (50 lines of 100 units) in range.
#[derive(Debug, Object)]
pub(super) struct Price {
    /// Amount in minor units of the currency, such as cents: 0 to 1000000000.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000")))]
    pub(super) amount: i64,
    /// Currency code (ISO 4217): three upper-case letters, such as `EUR`.
    pub(super) currency: Text<formats::Currency>,
}

/// Amount of a payment or refund: at least one minor unit.
#[derive(Debug, Object)]
pub(super) struct PositiveMoney {
    /// Amount in minor units of the currency, such as cents: 1 to 9007199254740991 (2^53 - 1).
    #[oai(validator(minimum(value = "1"), maximum(value = "9007199254740991")))]
    pub(super) amount: i64,
    /// Currency code (ISO 4217): three upper-case letters, such as `EUR`.
    pub(super) currency: Text<formats::Currency>,
}

impl From<Money> for MoneyView {
    fn from(money: Money) -> Self {
        Self { amount: money.amount(), currency: money.currency().as_str().into() }
    }
}

impl TryFrom<&Price> for Money {
    type Error = MoneyError;

    fn try_from(price: &Price) -> Result<Self, MoneyError> {
        Self::new(price.amount, price.currency.parse()?)
    }
}

impl TryFrom<&PositiveMoney> for Money {
    type Error = MoneyError;

    fn try_from(money: &PositiveMoney) -> Result<Self, MoneyError> {
        Self::new(money.amount, money.currency.parse()?)
    }
}
