//! Actions of orders and billing: one type per operation, with its row of the route matrix
//! (THREAT-01, AUTHN-13, AUTHZ-05).
//!
//! Reviewers find here which callers may call which operation. A permit of the action is what a
//! handler gets and what `store` demands. The actions of API keys, audit trail, health and
//! documentation are in [`palisade::authz::actions`].

use palisade::authz::{StepUp, policy::SEE_PERSONAL};

use super::{
    roles::{
        ERASE_CUSTOMERS, EXPORT, READ_BILLING, READ_CATALOG, READ_CUSTOMERS, READ_ORDERS, REFUND, WRITE_BILLING,
        WRITE_CATALOG, WRITE_CUSTOMERS, WRITE_ORDERS,
    },
    scopes::{
        BILLING_READ, BILLING_REFUND, BILLING_WRITE, CATALOG_READ, CATALOG_WRITE, CUSTOMERS_READ, CUSTOMERS_WRITE,
        EXPORTS_CREATE, ORDERS_READ, ORDERS_WRITE,
    },
};

palisade::actions! {
    /// The rows of orders and billing.
    pub static ORDERS;

    /// List products.
    Read ListProducts = Get "/v1/products" as "listProducts" {
        Authenticated, scope Some(CATALOG_READ), permission Some(READ_CATALOG), quota Read,
        data Tenant, audit "products_listed", outage Closed, read_only Served,
    }
    /// Read one product.
    Read GetProduct = Get "/v1/products/{sku}" as "getProduct" {
        Authenticated, scope Some(CATALOG_READ), permission Some(READ_CATALOG), quota Read,
        data Tenant, audit "product_read", outage Closed, read_only Served,
    }
    /// Create or replace a product.
    Change PutProduct = Put "/v1/products/{sku}" as "putProduct" {
        Authenticated, scope Some(CATALOG_WRITE), permission Some(WRITE_CATALOG), quota Write,
        data Tenant, audit "product_put", outage Closed, read_only Refused,
    }
    /// Create a customer.
    Change CreateCustomer = Post "/v1/customers" as "createCustomer" {
        Authenticated, scope Some(CUSTOMERS_WRITE), permission Some(WRITE_CUSTOMERS), quota Write,
        data Personal, audit "customer_created", outage Closed, read_only Refused,
    }
    /// List customers.
    Read ListCustomers = Get "/v1/customers" as "listCustomers" {
        Authenticated, scope Some(CUSTOMERS_READ), permission Some(READ_CUSTOMERS), quota Read,
        data Personal, audit "customers_listed", outage Closed, read_only Served,
    }
    /// Find customers by a sealed field. A found customer confirms the value, so this takes the right
    /// to see it.
    Read SearchCustomers = Post "/v1/customers/search" as "searchCustomers" {
        NoKeys, scope Some(CUSTOMERS_READ), permission Some(SEE_PERSONAL), quota Read,
        data Personal, audit "customers_searched", outage Closed, read_only Served,
    }
    /// Read one customer.
    Read GetCustomer = Get "/v1/customers/{id}" as "getCustomer" {
        Authenticated, scope Some(CUSTOMERS_READ), permission Some(READ_CUSTOMERS), quota Read,
        data Personal, audit "customer_read", outage Closed, read_only Served,
    }
    /// Update a customer.
    Change UpdateCustomer = Patch "/v1/customers/{id}" as "updateCustomer" {
        Authenticated, scope Some(CUSTOMERS_WRITE), permission Some(WRITE_CUSTOMERS), quota Write,
        data Personal, audit "customer_updated", outage Closed, read_only Refused,
    }
    /// Erase a customer.
    Change EraseCustomer = Delete "/v1/customers/{id}" as "eraseCustomer" {
        NoKeys, scope Some(CUSTOMERS_WRITE), permission Some(ERASE_CUSTOMERS), quota Sensitive,
        data Personal, audit "customer_erased", outage Closed, read_only Refused, step_up StepUp::RECENT,
    }
    /// Place an order.
    Change CreateOrder = Post "/v1/orders" as "createOrder" {
        Authenticated, scope Some(ORDERS_WRITE), permission Some(WRITE_ORDERS), quota Write,
        data Tenant, audit "order_created", outage Closed, read_only Refused,
    }
    /// List orders.
    Read ListOrders = Get "/v1/orders" as "listOrders" {
        Authenticated, scope Some(ORDERS_READ), permission Some(READ_ORDERS), quota Read,
        data Tenant, audit "orders_listed", outage Closed, read_only Served,
    }
    /// Read one order.
    Read GetOrder = Get "/v1/orders/{id}" as "getOrder" {
        Authenticated, scope Some(ORDERS_READ), permission Some(READ_ORDERS), quota Read,
        data Tenant, audit "order_read", outage Closed, read_only Served,
    }
    /// Cancel an order.
    Change CancelOrder = Post "/v1/orders/{id}/cancel" as "cancelOrder" {
        Authenticated, scope Some(ORDERS_WRITE), permission Some(WRITE_ORDERS), quota Write,
        data Tenant, audit "order_cancelled", outage Closed, read_only Refused,
    }
    /// Mark an order as fulfilled.
    Change FulfilOrder = Post "/v1/orders/{id}/fulfil" as "fulfilOrder" {
        Authenticated, scope Some(ORDERS_WRITE), permission Some(WRITE_ORDERS), quota Write,
        data Tenant, audit "order_fulfilled", outage Closed, read_only Refused,
    }
    /// Issue the invoice of an order.
    Change CreateInvoice = Post "/v1/orders/{id}/invoice" as "createInvoice" {
        Authenticated, scope Some(BILLING_WRITE), permission Some(WRITE_BILLING), quota Write,
        data Tenant, audit "invoice_issued", outage Closed, read_only Refused,
    }
    /// List invoices.
    Read ListInvoices = Get "/v1/invoices" as "listInvoices" {
        Authenticated, scope Some(BILLING_READ), permission Some(READ_BILLING), quota Read,
        data Tenant, audit "invoices_listed", outage Closed, read_only Served,
    }
    /// Read one invoice.
    Read GetInvoice = Get "/v1/invoices/{id}" as "getInvoice" {
        Authenticated, scope Some(BILLING_READ), permission Some(READ_BILLING), quota Read,
        data Tenant, audit "invoice_read", outage Closed, read_only Served,
    }
    /// Record a payment.
    Change CreatePayment = Post "/v1/invoices/{id}/payments" as "createPayment" {
        Authenticated, scope Some(BILLING_WRITE), permission Some(WRITE_BILLING), quota Sensitive,
        data Tenant, audit "payment_recorded", outage Closed, read_only Refused,
    }
    /// Void an invoice.
    Change VoidInvoice = Post "/v1/invoices/{id}/void" as "voidInvoice" {
        Authenticated, scope Some(BILLING_WRITE), permission Some(WRITE_BILLING), quota Sensitive,
        data Tenant, audit "invoice_voided", outage Closed, read_only Refused,
    }
    /// Refund a payment.
    Change CreateRefund = Post "/v1/payments/{id}/refunds" as "createRefund" {
        NoKeys, scope Some(BILLING_REFUND), permission Some(REFUND), quota Sensitive,
        data Tenant, audit "payment_refunded", outage Closed, read_only Refused, step_up StepUp::RECENT,
    }
    /// Export the tenant's books as a file.
    Read CreateExport = Post "/v1/exports" as "createExport" {
        NoKeys, scope Some(EXPORTS_CREATE), permission Some(EXPORT), quota Export,
        data Tenant, audit "books_exported", outage Closed, read_only Served, step_up StepUp::RECENT,
    }
}
