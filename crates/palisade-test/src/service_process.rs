//! The service as a separate process ([`ServiceProcess`]), and its log.
//!
//! For tests of signals, kills, resource limits and log lines. Tests give it the variables of its
//! environment, talk to its address, and wait for lines of its log.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{Actor, TestService, eventually};

/// The lines of a log, each of which must be a JSON object.
pub fn parse_log(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).expect("every log line is JSON")).collect()
}

/// A process that runs `serve`; killed on drop.
pub struct ServiceProcess {
    /// The address of its public listener.
    pub address: SocketAddr,
    /// The log lines read so far, without those that a test has waited for.
    pub log_lines: Vec<Value>,
    child: Child,
    log: UnboundedReceiver<String>,
}

impl ServiceProcess {
    /// Starts with these variables and waits until it is ready.
    pub async fn start(service: &TestService, variables: &BTreeMap<String, String>) -> Self {
        Self::start_command(service.binary(), variables).await
    }

    /// The same with a command that execs the binary, such as a shell that sets limits first.
    pub async fn start_command(command: Command, variables: &BTreeMap<String, String>) -> Self {
        let mut process = Self::spawn(command, variables, ([127, 0, 0, 1], 0).into());
        process.read_log();
        let find = |lines: &[Value], message: &str| lines.iter().find(|line| line["message"] == message).cloned();
        while find(&process.log_lines, "listening").is_none()
            || find(&process.log_lines, "issuer keys loaded").is_none()
        {
            let line = tokio::time::timeout(Duration::from_secs(20), process.log.recv()).await;
            let line = line.ok().flatten().unwrap_or_else(|| panic!("not ready; its log is {:#?}", process.log_lines));
            process.log_lines.push(serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}")));
        }
        let listening = find(&process.log_lines, "listening").unwrap();
        process.address = listening["address"].as_str().unwrap().parse().unwrap();
        process
    }

    /// Starts with these variables, which set this address, and polls until it is ready: for log
    /// filters that drop the line which says so.
    pub async fn start_at(service: &TestService, variables: &BTreeMap<String, String>, address: SocketAddr) -> Self {
        let mut process = Self::spawn(service.binary(), variables, address);
        process.read_log();
        process.wait_until_ready().await;
        process
    }

    /// The same, without reading its log: the pipe fills up.
    pub async fn start_without_log_reader(
        service: &TestService,
        variables: &BTreeMap<String, String>,
        address: SocketAddr,
    ) -> Self {
        let process = Self::spawn(service.binary(), variables, address);
        process.wait_until_ready().await;
        process
    }

    async fn wait_until_ready(&self) {
        let address = self.address;
        let anonymous = Actor::new(address, None);
        let is_ready = async || {
            let response = anonymous.request(http::Method::GET, "/health/ready").send().await;
            response.is_ok_and(|response| response.status().is_success())
        };
        eventually("ready", is_ready).await;
    }

    fn spawn(mut command: Command, variables: &BTreeMap<String, String>, address: SocketAddr) -> Self {
        let child = command.arg("serve").envs(variables).stderr(Stdio::piped()).spawn().unwrap();
        let (_, log) = tokio::sync::mpsc::unbounded_channel();
        Self { address, log_lines: Vec::new(), child, log }
    }

    /// Starts a thread that reads the log.
    fn read_log(&mut self) {
        let lines = BufReader::new(self.child.stderr.take().unwrap());
        let (sender, log) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || lines.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        self.log = log;
    }

    /// Sends SIGHUP: read the settings again.
    pub fn send_sighup(&self) {
        assert!(Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Waits for the next event of this name about a setting, and removes it from the log lines.
    pub async fn wait_for_event(&mut self, event: &str, setting: &str) -> Value {
        let what = format!("{event} of {setting}");
        self.wait_for_line(&what, |line| line["event"] == event && line["setting"] == setting).await
    }

    /// Waits for the next line that matches, and removes it from the log lines.
    pub async fn wait_for_line(&mut self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(at) = self.log_lines.iter().position(&matches) {
                return self.log_lines.remove(at);
            }
            let line = tokio::time::timeout_at(deadline, self.log.recv()).await;
            let line = line.unwrap_or_else(|_| panic!("no log line within 30 s: {what}")).unwrap();
            self.log_lines.push(serde_json::from_str(&line).expect("every log line is JSON"));
        }
    }

    /// Sends SIGKILL and waits until the process has ended.
    pub fn kill(self) {
        drop(self);
    }

    /// Sends SIGTERM; returns the exit status and the rest of the log.
    pub async fn terminate(mut self) -> (ExitStatus, String) {
        let terminate = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(terminate.success());
        let terminated = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(terminated.elapsed() < Duration::from_secs(20), "still running 20 s after SIGTERM");
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

/// A failed test leaves no process behind.
impl Drop for ServiceProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
