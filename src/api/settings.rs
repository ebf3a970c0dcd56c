//! Settings of the service.

palisade::settings! {
    /// Limits of orders.
    pub struct OrderLimits("orders"), "Orders" {
        max_total: i64 = "max_total".default(9_007_199_254_740_991).within(1, 9_007_199_254_740_991, "minor units"),
            "Largest total of an order, in minor units of its currency. A larger order is refused with 422, and raises the event `order_limit_exceeded`.";
    }
}
