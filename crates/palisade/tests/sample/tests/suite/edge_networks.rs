//! Limits by network (RATE-01, RATE-09, AUTHN-17): a client with many addresses counts in the wider
//! networks of its addresses too, and a client over its own limit uses up nothing of its neighbours.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::Method;
use sample::access::roles;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Actor, Reply, SERVICE, TestApp, events, eventually};

/// The test's client is a proxy, which names any client.
const PROXY: (&str, &str) = ("APP_HTTP__TRUSTED_PROXIES", "127.0.0.1");
/// Requests that an address has for the time of the test; so many because the test waits for
/// readiness.
const BURST: u32 = 20;
const FEW_REQUESTS: [(&str, &str); 3] =
    [PROXY, ("APP_THROTTLE__ADDRESS_PER_SECOND", "0.01"), ("APP_THROTTLE__ADDRESS_BURST", "20")];

/// A request of the client at `address`.
async fn get_from(actor: &Actor, address: &str) -> Reply {
    actor.send(actor.request(Method::GET, "/v1/me").header("x-forwarded-for", address)).await
}

/// Sends [`BURST`] requests from each of `count` addresses; the number that the rate limit passed,
/// in bursts.
async fn served_bursts(actor: &Actor, count: u32, address: impl Fn(u32) -> String) -> u32 {
    let mut served = 0;
    for n in 0..count * BURST {
        served += u32::from(get_from(actor, &address(n / BURST)).await.status != 429);
    }
    served / BURST
}

/// The rejection of a client whose network is exhausted. A request or two may find tokens that the
/// bucket got since.
async fn rejected(actor: &Actor, address: &str) -> Reply {
    for _ in 0..BURST / 2 {
        let reply = get_from(actor, address).await;
        if reply.status == 429 {
            assert_eq!((reply.problem(429), reply.body["limit"].as_str()), ("rate_limited", Some("address")));
            return reply;
        }
    }
    panic!("{address} is not rejected");
}

#[tokio::test]
async fn rate_01_ipv6_networks_are_limited_together() {
    let app = SERVICE.start_with(&FEW_REQUESTS).await;
    let actor = app.anonymous();
    // Requests over an address's own limit count for that address only.
    assert_eq!(served_bursts(&actor, 4, |n| format!("2001:db8:1:200::{n:x}")).await, 1);
    // A /56 has 8 times the limit of a /64, and a /48 has 32 times the limit.
    assert_eq!(served_bursts(&actor, 10, |n| format!("2001:db8:1:2{n:02x}::1")).await, 7);
    assert_eq!(rejected(&actor, "2001:db8:1:2ff::1").await.events()[0]["client"], "2001:db8:1:200::/56");
    assert_eq!(served_bursts(&actor, 27, |n| format!("2001:db8:1:{:x}::1", (n + 3) << 8)).await, 24);
    assert_eq!(rejected(&actor, "2001:db8:1:ff00::1").await.events()[0]["client"], "2001:db8:1::/48");
    get_from(&actor, "2001:db8:2:200::1").await.problem(401);
}

#[tokio::test]
async fn rate_01_ipv4_networks_are_limited_together() {
    let app = SERVICE.start_with(&FEW_REQUESTS).await;
    let actor = app.anonymous();
    assert_eq!(served_bursts(&actor, 3, |_| "198.51.100.77".to_owned()).await, 1);
    assert_eq!(served_bursts(&actor, 35, |n| format!("198.51.100.{n}")).await, 31);
    assert_eq!(rejected(&actor, "198.51.100.200").await.events()[0]["client"], "198.51.100.0/24");
    get_from(&actor, "198.51.101.1").await.problem(401);
}

/// Authenticated callers do not count in the networks of their address.
#[tokio::test]
async fn rate_06_exhausted_network_does_not_affect_authenticated_callers() {
    let app = SERVICE.start_with(&FEW_REQUESTS).await;
    let user = app.user(roles::VIEWER);
    get_from(&user, "198.51.100.1").await.ok(200);
    served_bursts(&app.anonymous(), 35, |n| format!("198.51.100.{n}")).await;
    rejected(&app.anonymous(), "198.51.100.250").await;
    get_from(&user, "198.51.100.1").await.ok(200);
}

#[tokio::test]
async fn authn_17_ipv6_networks_are_locked_out_together() {
    let limits = [("APP_FAILURE_LIMIT__FREE_FAILURES", "2"), ("APP_FAILURE_LIMIT__MAX_FAILURES", "2")];
    let app = SERVICE.start_with(&[&[PROXY][..], &limits].concat()).await;
    let attacker = app.bearer("e30.e30.e30");
    // A blocked address does not use up the limit of its neighbours.
    for _ in 0..20 {
        get_from(&attacker, "2001:db8:1:300::1").await;
    }
    // The address has counted one failure in its /56, which has 8 times the limit.
    for n in 1..15 {
        let reply = get_from(&attacker, &format!("2001:db8:1:3{n:02x}::1")).await;
        assert_eq!(reply.status, 401, "{n}");
    }
    let reply = get_from(&attacker, "2001:db8:1:3ff::1").await;
    assert_eq!(reply.problem(429), "rate_limited");
    let lockout = &reply.events()[0];
    assert_eq!((&*lockout["event"], &*lockout["source"]), ("authn_login_lock", "2001:db8:1:300::/56"));
    assert_eq!(lockout["failures"], "16");
    // Valid tokens and other networks are not affected.
    get_from(&app.user(roles::VIEWER), "2001:db8:1:3aa::1").await.ok(200);
    get_from(&attacker, "2001:db8:1:400::1").await.problem(401);
}

/// A request from `address` that is in progress until its last byte is sent.
async fn start_request(app: &TestApp, address: &str) -> TcpStream {
    let head = format!(
        "POST /v1/notes HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{",
        app.forge().claim("sub", address).token()
    );
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

async fn read_response(socket: &mut TcpStream) -> String {
    let mut response = String::new();
    socket.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn rate_09_an_ipv6_site_holds_at_most_half_of_the_requests() {
    let app = SERVICE
        .start_with(&[
            PROXY,
            ("APP_HTTP__MAX_CONCURRENT_REQUESTS", "16"),
            ("APP_HTTP__BODY_TIMEOUT_MS", "60000"),
            ("APP_HTTP__REQUEST_TIMEOUT_MS", "60000"),
        ])
        .await;
    let user = app.user(roles::VIEWER);
    let mut held = Vec::new();
    for n in 0..20 {
        held.push(start_request(&app, &format!("2001:db8:1:{:x}::1", n << 8)).await);
    }
    eventually("the site is at its limit", async || get_from(&user, "2001:db8:1:ff00::1").await.status == 503).await;
    // Eight are in progress, mostly the first ones; the others were rejected.
    let mut responses: FuturesUnordered<_> = held.iter_mut().map(read_response).collect();
    for _ in 8..20 {
        let response = responses.next().await.unwrap();
        assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    }
    let reply = get_from(&user, "2001:db8:1:ff00::1").await;
    assert_eq!((reply.problem(503), &*reply.events()[0]["limit"]), ("unavailable", "requests"));
    get_from(&user, "2001:db8:2::1").await.ok(200);
}

#[tokio::test]
async fn rate_09_ipv4_networks_share_connections() {
    let variables = [("APP_HTTP__MAX_CONNECTIONS_PER_ADDRESS", "1"), ("APP_HTTP__HEADER_TIMEOUT_MS", "60000")];
    let app = SERVICE.start_with(&variables).await;
    let live = |third, last| {
        let actor = app.anonymous().at_address(IpAddr::V4(Ipv4Addr::new(127, 77, third, last)));
        async move { (actor.can_connect().await, actor) }
    };
    // Each actor keeps its connection. A /24 has 32 times the limit of an address.
    let mut kept = Vec::new();
    for last in 1..=32 {
        let (connected, actor) = live(0, last).await;
        assert!(connected, "{last}");
        kept.push(actor);
    }
    assert!(!live(0, 33).await.0, "the network is over its limit");
    assert!(live(1, 33).await.0, "another network");
    let refused = async || {
        let of_network = |event: &events::Fields| event.get("client").is_some_and(|client| client == "127.77.0.33");
        events::for_trace_id("").iter().any(|event| of_network(event) && event["limit"] == "connections")
    };
    eventually("an event for the refused connection", refused).await;
    drop(kept);
}
