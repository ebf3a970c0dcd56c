//! HTTP/1.1 over raw sockets, for requests that no client library sends.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::TestApp;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends bytes and reads until the service closes the connection. Sending may fail when the service
/// stops reading.
pub async fn send_raw(app: &TestApp, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    let _ = socket.write_all(request).await;
    let mut response = Vec::new();
    let _ = timeout(TIMEOUT, socket.read_to_end(&mut response)).await.expect("the service closes");
    String::from_utf8_lossy(&response).into_owned()
}

/// The status of a response; 0 if there is none.
pub fn status(response: &str) -> u16 {
    response.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// Checks for one response, which is a problem with this code.
#[track_caller]
pub fn assert_problem(response: &str, expected: u16, code: &str, case: &str) {
    assert_eq!(status(response), expected, "{case}: {response}");
    assert!(response.contains(&format!("\"code\":\"{code}\"")), "{case}: {response}");
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{case}: {response}");
}
