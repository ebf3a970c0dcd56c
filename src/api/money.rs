//! Amounts of money as callers send and see them.

use poem_openapi::Object;

use super::text::{Text, form};
use crate::domain::{Money, MoneyError};

/// An amount of money in minor units (cents), never a fraction. No sum of what can be sent reaches the maximum.
#[derive(Debug, Object)]
#[oai(rename = "Money")]
pub(super) struct MoneyView {
    /// Minor units of the currency.
    #[oai(validator(minimum(value = "0"), maximum(value = "9007199254740991")))]
    pub(super) amount: i64,
    /// ISO 4217 code.
    pub(super) currency: Text<form::Currency>,
}

/// The price of one unit: up to 10 million of most currencies, so that no order can overflow.
#[derive(Debug, Object)]
pub(super) struct Price {
    /// Minor units of the currency.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000")))]
    pub(super) amount: i64,
    /// ISO 4217 code.
    pub(super) currency: Text<form::Currency>,
}

/// An amount of money to move: at least one minor unit.
#[derive(Debug, Object)]
pub(super) struct PositiveMoney {
    /// Minor units of the currency.
    #[oai(validator(minimum(value = "1"), maximum(value = "9007199254740991")))]
    pub(super) amount: i64,
    /// ISO 4217 code.
    pub(super) currency: Text<form::Currency>,
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
