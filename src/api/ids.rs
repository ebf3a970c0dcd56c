//! Identifiers that operations take as parameters.

use palisade::id_parameters;

use crate::domain::{CustomerId, InvoiceId, OrderId, PaymentId};

id_parameters! { CustomerId, InvoiceId, OrderId, PaymentId }
