//! The measured operations: their requests, and the check of an answer before anything is measured.
//!
//! In: a target with its callers. Out: a [`Plan`] with prepared requests, each of a random caller on
//! random data. The values of the seed follow from its numbers (`seed.sql`).

use std::{fmt::Write as _, sync::Arc};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{Failure, load, load::Plan, stack::Target};

/// Prepared requests of one operation. They are sent in turns.
const REQUESTS: usize = 20_000;

/// A caller: the index of its tenant, and the header that names it.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) tenant: usize,
    pub(crate) header: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operation {
    Read,
    List,
    ListByStatus,
    ListByCustomer,
    ListByTime,
    Create,
    Pay,
    Customer,
    /// Not a token at all.
    #[value(name = "401")]
    NoToken,
    /// A token with a wrong signature, which must be verified to know.
    #[value(name = "401-forged")]
    ForgedToken,
    /// A viewer places an order.
    #[value(name = "403")]
    Forbidden,
    /// An order of another tenant.
    #[value(name = "404")]
    NotFound,
    /// The declared length is above the limit.
    #[value(name = "413")]
    TooLarge,
    /// The bucket of the address is empty.
    #[value(name = "429")]
    Throttled,
}

impl Operation {
    pub(crate) const SERVED: [Self; 5] = [Self::Read, Self::List, Self::Create, Self::Pay, Self::Customer];
    pub(crate) const REFUSED: [Self; 6] =
        [Self::NoToken, Self::ForgedToken, Self::Forbidden, Self::NotFound, Self::TooLarge, Self::Throttled];
    pub(crate) const SCALED: [Self; 6] =
        [Self::Read, Self::List, Self::ListByStatus, Self::ListByCustomer, Self::ListByTime, Self::Create];

    pub(crate) fn name(self) -> String {
        self.to_possible_value().expect("each operation has a name").get_name().to_owned()
    }

    /// Whether rows must be taken back after a round.
    pub(crate) fn changes(self) -> bool {
        matches!(self, Self::Create | Self::Pay)
    }

    fn expected(self) -> u16 {
        match self {
            Self::Create | Self::Pay => 201,
            Self::NoToken | Self::ForgedToken => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::TooLarge => 413,
            Self::Throttled => 429,
            _ => 200,
        }
    }

    /// Prepares the requests of this operation for a target.
    pub(crate) fn plan(self, target: &Target) -> Arc<Plan> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let requests = if self == Self::Pay {
            let is_invoiced = |number: &usize| (number / target.size.tenants).is_multiple_of(5);
            let numbers = (1..=target.size.orders.min(100_000)).filter(is_invoiced);
            numbers.map(|number| pay(target, number)).collect()
        } else {
            (0..REQUESTS).map(|_| self.request(target, &mut random)).collect()
        };
        // The hello server answers every request with 200.
        let expected = if target.name == "hello" { 200 } else { self.expected() };
        Arc::new(Plan { requests, expected, once: self == Self::Pay })
    }

    fn request(self, target: &Target, random: &mut Random) -> Vec<u8> {
        let caller = &target.callers[random.below(target.callers.len())];
        let tenants = target.size.tenants;
        // Numbers from 1, and for each tenant those that leave its index as the remainder.
        let order_of = |tenant: usize, random: &mut Random| {
            let number = random.below(target.size.orders / tenants) * tenants + tenant;
            if number == 0 { tenants } else { number }
        };
        let order = order_of(caller.tenant, random);
        let header = caller.header.as_str();
        match self {
            Self::Read => get(header, &format!("/v1/orders/{}", order_id(order))),
            Self::List => get(header, "/v1/orders"),
            Self::ListByStatus => get(header, "/v1/orders?status=cancelled"),
            Self::ListByCustomer => {
                let customers = target.size.orders / tenants / 50 + 1;
                get(header, &format!("/v1/orders?customerId={}", seeded_id(2, order / tenants % customers)))
            }
            Self::ListByTime => {
                // Orders are a second apart; at least a page of them is older.
                let second = target.size.orders / 2 + order / 2;
                let (day, hours, minutes) = (second / 86_400 + 1, second / 3600 % 24, second / 60 % 60);
                get(header, &format!("/v1/orders?createdTo=2025-01-{day:02}T{hours:02}:{minutes:02}:59Z"))
            }
            Self::Create => post(header, "/v1/orders", &new_order(random)),
            Self::Pay => unreachable!("each invoice is paid once"),
            Self::Customer => {
                let of_tenant: Vec<_> =
                    target.customers.iter().filter(|(tenant, _)| *tenant == caller.tenant).collect();
                get(header, &format!("/v1/customers/{}", of_tenant[random.below(of_tenant.len())].1))
            }
            Self::NoToken => get("authorization: Bearer not-a-token", "/v1/orders"),
            Self::ForgedToken => {
                // Each request has another signature. The end of the base64 text stays as it is.
                let signature = header.len().saturating_sub(44)..header.len().saturating_sub(4);
                let mut forged = header.to_owned();
                let letter = |_| char::from(b'A' + u8::try_from(random.below(26)).unwrap());
                forged.replace_range(signature.clone(), &signature.map(letter).collect::<String>());
                get(&forged, "/v1/orders")
            }
            Self::Forbidden => {
                let viewer = &target.viewers[random.below(target.viewers.len())];
                post(&viewer.header, "/v1/orders", &new_order(random))
            }
            Self::NotFound => {
                let other = order_of((caller.tenant + 1) % tenants, random);
                get(header, &format!("/v1/orders/{}", order_id(other)))
            }
            Self::TooLarge => {
                let head = "content-type: application/json\r\ncontent-length: 100000000";
                format!("POST /v1/orders HTTP/1.1\r\nhost: localhost\r\n{header}\r\n{head}\r\n\r\n").into_bytes()
            }
            Self::Throttled => get("accept: */*", "/v1/orders"),
        }
    }

    /// Sends one request and checks the answer. Returns what all targets must answer alike.
    pub(crate) async fn check(self, target: &Target) -> Result<Value, Failure> {
        let plan = self.plan(target);
        let (status, body) = load::fetch(target.address, &plan.requests[0]).await?;
        let failed = |why: &str| Failure::from(format!("{} {}: {why}: {status} {body}", target.name, self.name()));
        if status != plan.expected {
            return Err(failed("status"));
        }
        let order = |order: &Value| json!([order["status"], order["lines"], order["total"]]);
        let checked = match self {
            Self::Read => json!([body["id"], order(&body)]),
            Self::List | Self::ListByStatus | Self::ListByCustomer | Self::ListByTime => {
                let items = body["items"].as_array().ok_or_else(|| failed("no items"))?;
                if items.len() != 20 {
                    return Err(failed("not 20 items"));
                }
                items.iter().map(|item| json!([item["id"], order(item)])).collect()
            }
            Self::Create => order(&body),
            Self::Pay => json!([body["amount"], body["invoiceId"]]),
            Self::Customer => json!([body["name"], body["email"]]),
            _ => return Ok(Value::Null),
        };
        if checked.to_string().contains("null") { Err(failed("incomplete")) } else { Ok(checked) }
    }
}

/// Creates a customer of each tenant with this product, which seals the personal data itself.
pub(crate) async fn create_customers(target: &mut Target) -> Result<(), Failure> {
    for tenant in 0..target.size.tenants {
        let caller = target.callers.iter().find(|caller| caller.tenant == tenant).expect("each tenant has callers");
        let body = json!({ "name": "Erika Mustermann", "email": "erika@example.com", "phone": "+4930123456" });
        let (status, body) = load::fetch(target.address, &post(&caller.header, "/v1/customers", &body)).await?;
        let id = body["id"].as_str().ok_or_else(|| format!("no customer: {status} {body}"))?;
        target.customers.push((tenant, id.to_owned()));
    }
    Ok(())
}

fn pay(target: &Target, number: usize) -> Vec<u8> {
    let callers: Vec<_> =
        target.callers.iter().filter(|caller| caller.tenant == number % target.size.tenants).collect();
    let caller = callers[number % callers.len()];
    let unit_price = |line: usize| 100 + ((number * 7 + line * 61) % 200 + 1) * 37;
    let total: usize = (0..3).map(|line| (line + 1) * unit_price(line)).sum();
    let header = format!("{}\r\nidempotency-key: {}", caller.header, uuid::Uuid::now_v7());
    let body = json!({ "amount": { "amount": total, "currency": "EUR" } });
    post(&header, &format!("/v1/invoices/{}/payments", seeded_id(3, number)), &body)
}

fn new_order(random: &mut Random) -> Value {
    let first = random.below(200);
    let lines: Vec<Value> = (0..3)
        .map(|line| json!({ "sku": format!("SKU-{:04}", (first + line * 61) % 200 + 1), "quantity": line + 1 }))
        .collect();
    json!({ "lines": lines, "shippingSpeed": "standard" })
}

fn get(header: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\n\r\n").into_bytes()
}

fn post(header: &str, path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\n");
    let _ = write!(request, "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    request.into_bytes()
}

fn order_id(number: usize) -> String {
    seeded_id(0, number)
}

pub(crate) fn tenant_id(index: usize) -> String {
    seeded_id(1, index)
}

/// The id with this number in the seed: 0 orders, 1 tenants, 2 customers, 3 invoices.
fn seeded_id(kind: u8, number: usize) -> String {
    format!("0190a000-0000-7000-800{kind}-{number:012x}")
}

/// xorshift64: the same requests in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}
