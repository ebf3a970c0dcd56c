//! Money as integer minor units of a currency, with checked arithmetic (INPUT-09).
//!
//! Prices, totals, payments and refunds use it. No operation rounds, wraps around or mixes
//! currencies.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// An ISO 4217 currency code: three upper-case letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The code, such as `EUR`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Always UTF-8. If it were not, the empty text would be rejected everywhere as a currency.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(s: &str) -> Result<Self, MoneyError> {
        match <[u8; 3]>::try_from(s.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Self(code)),
            _ => Err(MoneyError::InvalidCurrency),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount of money: integer minor units (cents) of one currency. Never a float, never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    amount: i64,
    currency: Currency,
}

/// Why an amount or a currency is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MoneyError {
    /// Not three upper-case letters.
    #[error("not an ISO 4217 currency code")]
    InvalidCurrency,
    /// The amount is below zero.
    #[error("an amount cannot be negative")]
    Negative,
    /// The amount exceeds `i64` minor units.
    #[error("the amount is too large")]
    Overflow,
    /// The amounts have different currencies.
    #[error("amounts of different currencies cannot be added or subtracted")]
    CurrencyMismatch,
}

impl Money {
    /// Creates an amount of minor units of `currency`. An error if it is negative.
    pub fn new(amount: i64, currency: Currency) -> Result<Self, MoneyError> {
        if amount < 0 {
            return Err(MoneyError::Negative);
        }
        Ok(Self { amount, currency })
    }

    /// The number of minor units.
    #[must_use]
    pub const fn amount(&self) -> i64 {
        self.amount
    }

    /// The currency of the amount.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        self.currency
    }

    /// Adds two amounts. An error if the sum overflows or the currencies differ.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch);
        }
        let amount = self.amount.checked_add(other.amount).ok_or(MoneyError::Overflow)?;
        Self::new(amount, self.currency)
    }

    /// Subtracts an amount. An error if the difference is negative or the currencies differ.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch);
        }
        let amount = self.amount.checked_sub(other.amount).ok_or(MoneyError::Overflow)?;
        Self::new(amount, self.currency)
    }

    /// Multiplies the amount. An error if the product overflows or is negative.
    pub fn checked_mul(self, factor: i64) -> Result<Self, MoneyError> {
        let amount = self.amount.checked_mul(factor).ok_or(MoneyError::Overflow)?;
        Self::new(amount, self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eur(amount: i64) -> Money {
        Money::new(amount, "EUR".parse().unwrap()).unwrap()
    }

    #[test]
    fn input_09_overflow_and_mixed_currencies_are_errors() {
        assert_eq!(eur(199).checked_mul(3), Ok(eur(597)));
        assert_eq!(eur(i64::MAX).checked_mul(2), Err(MoneyError::Overflow));
        assert_eq!(eur(i64::MAX).checked_add(eur(1)), Err(MoneyError::Overflow));
        assert_eq!(eur(1).checked_mul(-1), Err(MoneyError::Negative));
        assert_eq!(eur(3).checked_sub(eur(1)), Ok(eur(2)));
        assert_eq!(eur(1).checked_sub(eur(2)), Err(MoneyError::Negative));
        let usd = Money::new(1, "USD".parse().unwrap()).unwrap();
        assert_eq!(eur(1).checked_add(usd), Err(MoneyError::CurrencyMismatch));
    }

    #[test]
    fn currency_has_three_upper_case_letters() {
        for bad in ["", "eur", "EU", "EURO", "E\u{20ac}", "E1R"] {
            assert_eq!(bad.parse::<Currency>(), Err(MoneyError::InvalidCurrency), "{bad:?}");
        }
    }
}
