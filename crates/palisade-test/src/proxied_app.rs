//! [`ProxiedApp`]: a service whose messages to the database a test counts.

use std::time::Duration;

use reqwest::RequestBuilder;

use crate::{Actor, PgProxy, TestApp, TestService};

/// A name, a request, and the messages that it must take.
pub type CountedRequest = (&'static str, RequestBuilder, &'static [&'static str]);

/// An app with one connection per login. Those of the writer and the reader go through a proxy.
pub struct ProxiedApp {
    /// The app.
    pub app: TestApp,
    /// The proxy of the writer.
    pub writer: PgProxy,
    /// The proxy of the reader.
    pub reader: PgProxy,
}

impl ProxiedApp {
    /// Starts on a database of its own.
    pub async fn start(service: &'static TestService) -> Self {
        let database = service.database().await;
        let writer = PgProxy::start(&database.writer).await;
        let reader = PgProxy::start(&database.reader).await;
        let variables = [
            ("APP_DATABASE__WRITER_URL", writer.url()),
            ("APP_DATABASE__READER_URL", reader.url()),
            ("APP_DATABASE__MAX_CONNECTIONS", "1"),
            ("APP_DATABASE__ACQUIRE_TIMEOUT_MS", "30000"),
        ];
        let app = service.start_on(database, &variables).await;
        Self { app, writer, reader }
    }

    /// Sends each request twice as this actor. Asserts success, and that the second round takes
    /// exactly the expected messages: the first one prepares the statements on the connection, which
    /// takes further ones.
    pub async fn assert_messages(&self, actor: &Actor, requests: impl Fn() -> Vec<CountedRequest>) {
        for (_, request, _) in requests() {
            assert!(actor.send(request).await.status.is_success());
        }
        self.take_messages(0).await;
        for (what, request, expected) in requests() {
            assert!(actor.send(request).await.status.is_success());
            assert_eq!(self.take_messages(expected.len()).await, expected, "{what}");
        }
    }

    /// The messages since the last call, once there are at least this many, and the connection of each
    /// transaction is back in the pool.
    async fn take_messages(&self, least: usize) -> Vec<String> {
        let mut messages: Vec<String> = Vec::new();
        let is_back = |messages: &[String]| {
            let position = |kinds: &[&str]| messages.iter().rposition(|message| kinds.contains(&message.as_str()));
            position(&["begin"]) < position(&["commit", "rollback"]) || position(&["begin"]).is_none()
        };
        for _ in 0..200 {
            messages.extend(self.writer.take_messages());
            messages.extend(self.reader.take_messages());
            // Connections that are idle are tested now and then, whatever the requests are.
            messages.retain(|message| message != "ping");
            if messages.len() >= least && is_back(&messages) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        messages
    }
}
