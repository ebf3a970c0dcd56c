//! Identifiers that operations take as parameters.

use crate::{
    domain::{CustomerId, InvoiceId, OrderId, PaymentId},
    id_parameters,
};

id_parameters! { CustomerId, InvoiceId, OrderId, PaymentId }
