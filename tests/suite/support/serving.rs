use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Actor, eventually};

/// The binary, with none of this process's environment.
pub fn binary() -> Command {
    let mut command = Command::new(env!(concat!("CARGO_BIN_EXE_", env!("CARGO_PKG_NAME"))));
    command.env_clear();
    command
}

/// `serve` in a process of its own.
pub struct Serving {
    pub address: SocketAddr,
    /// What it logged until it was ready, or until something was waited for.
    pub said: Vec<Value>,
    child: Child,
    log: UnboundedReceiver<String>,
}

impl Serving {
    /// Started with these variables, and ready.
    pub async fn start(variables: &BTreeMap<String, String>) -> Self {
        Self::start_as(binary(), variables).await
    }

    /// The same, of a command that becomes the binary.
    pub async fn start_as(command: Command, variables: &BTreeMap<String, String>) -> Self {
        // From here on it is killed whatever happens.
        let mut serving = Self::spawn(command, variables, ([127, 0, 0, 1], 0).into());
        serving.hear();
        let said = |seen: &[Value], what: &str| seen.iter().find(|line| line["message"] == what).cloned();
        while said(&serving.said, "listening").is_none() || said(&serving.said, "issuer keys loaded").is_none() {
            let line = tokio::time::timeout(Duration::from_secs(20), serving.log.recv()).await;
            let line = line.ok().flatten().unwrap_or_else(|| panic!("not ready; it said {:#?}", serving.said));
            serving.said.push(serde_json::from_str(&line).expect("every log line is JSON"));
        }
        let listening = said(&serving.said, "listening").unwrap();
        serving.address = listening["address"].as_str().unwrap().parse().unwrap();
        serving
    }

    /// Started with these variables at this address, and ready, whether or not it says so.
    pub async fn start_at(variables: &BTreeMap<String, String>, address: SocketAddr) -> Self {
        let mut serving = Self::spawn(binary(), variables, address);
        serving.hear();
        serving.is_ready().await;
        serving
    }

    /// The same, with nothing that reads its log.
    pub async fn start_unheard(variables: &BTreeMap<String, String>, address: SocketAddr) -> Self {
        let serving = Self::spawn(binary(), variables, address);
        serving.is_ready().await;
        serving
    }

    async fn is_ready(&self) {
        let address = self.address;
        let anonymous = Actor::new(address, None);
        let ask = async || {
            let asked = anonymous.request(http::Method::GET, "/health/ready").send().await;
            asked.is_ok_and(|answer| answer.status().is_success())
        };
        eventually("ready", ask).await;
    }

    fn spawn(mut command: Command, variables: &BTreeMap<String, String>, address: SocketAddr) -> Self {
        let child = command.arg("serve").envs(variables).stderr(Stdio::piped()).spawn().unwrap();
        let (_, log) = tokio::sync::mpsc::unbounded_channel();
        Self { address, said: Vec::new(), child, log }
    }

    /// Reads its log from here on.
    fn hear(&mut self) {
        let lines = BufReader::new(self.child.stderr.take().unwrap());
        let (sender, log) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || lines.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        self.log = log;
    }

    /// SIGHUP
    pub fn hang_up(&self) {
        assert!(Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// The next event of this name about a setting. It counts as heard then.
    pub async fn event(&mut self, event: &str, setting: &str) -> Value {
        self.line(&format!("{event} of {setting}"), |line| line["event"] == event && line["setting"] == setting).await
    }

    /// The next such line. It counts as heard then.
    pub async fn line(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let asked = tokio::time::Instant::now();
        loop {
            if let Some(at) = self.said.iter().position(&wanted) {
                return self.said.remove(at);
            }
            let line = tokio::time::timeout_at(asked + Duration::from_secs(30), self.log.recv()).await;
            let line = line.unwrap_or_else(|_| panic!("it did not say {what}")).unwrap();
            self.said.push(serde_json::from_str(&line).expect("every log line is JSON"));
        }
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(self) {
        drop(self);
    }

    /// SIGTERM; how it ended and what it logged since it was ready.
    pub async fn terminate(mut self) -> (ExitStatus, String) {
        let terminate = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(terminate.success());
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(asked.elapsed() < Duration::from_secs(20), "still running 20 s after SIGTERM");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let mut log = String::new();
        while let Some(line) = self.log.recv().await {
            log.push_str(&line);
            log.push('\n');
        }
        (status, log)
    }
}

/// A test that fails leaves no process behind.
impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
