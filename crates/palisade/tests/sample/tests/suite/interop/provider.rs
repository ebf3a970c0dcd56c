//! The OpenID provider of the interop tests: a process that runs `tests/interop/provider.mjs`.

use std::{
    io::{BufRead, BufReader, Read, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use palisade::authz::Scope;
use sample::access::scopes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{REDIRECT_URI, text};
use crate::support::ACME;

/// The process ends when its standard input closes, so it never outlives the tests.
pub struct Provider {
    pub issuer: String,
    /// The secret of its confidential clients.
    pub secret: String,
    algorithms: usize,
    child: Child,
    commands: ChildStdin,
    /// In a mutex, because a static must be `Sync`.
    output: Mutex<Receiver<String>>,
}

impl Provider {
    /// Starts a provider with a key and a confidential client for each of these algorithms. The
    /// tokens of `job` are signed with the first.
    pub fn start(folder: &Path, algorithms: &[&str]) -> Self {
        Self::start_for(folder, algorithms, "http://127.0.0.1:7777")
    }

    /// The same, with a client `bff` for browser sessions of the service at this URL.
    pub fn start_for(folder: &Path, algorithms: &[&str], service: &str) -> Self {
        let secret = Uuid::now_v7().to_string();
        let configuration = json!({
            "audience": "api://under-test",
            "scopes": scopes::ALL.map(Scope::as_str),
            "tenant": ACME.id.to_string(),
            "algorithms": algorithms,
            "secret": secret,
            "redirect": REDIRECT_URI,
            "service": service,
        });
        // Passed as text, the module finds its packages in the working directory.
        let mut child = Command::new("node")
            .args(["--input-type=module", "--eval", include_str!("../../interop/provider.mjs"), "--"])
            .arg(configuration.to_string())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let (sender, output) = channel();
        forward_lines(child.stdout.take().unwrap(), sender.clone());
        forward_lines(child.stderr.take().unwrap(), sender);
        let mut provider = Self {
            issuer: String::new(),
            secret,
            algorithms: algorithms.len(),
            child,
            commands,
            output: Mutex::new(output),
        };
        let ready = provider.next_json();
        provider.issuer = text(&ready["issuer"]);
        provider
    }

    /// Signs with new keys from now on. The previous keys stay published.
    pub fn rotate(&mut self) {
        self.command("rotate", 2 * self.algorithms);
    }

    /// Publishes the newest keys only.
    pub fn withdraw(&mut self) {
        self.command("withdraw", self.algorithms);
    }

    fn command(&mut self, command: &str, keys: usize) {
        writeln!(self.commands, "{command}").unwrap();
        assert_eq!(self.next_json()["keys"], keys);
    }

    /// The next line of JSON. Other lines are warnings, and matter only if no JSON comes.
    fn next_json(&mut self) -> Value {
        let output = self.output.get_mut().unwrap();
        let mut other = String::new();
        loop {
            match output.recv_timeout(Duration::from_secs(30)) {
                Ok(line) if line.starts_with('{') => return serde_json::from_str(&line).unwrap(),
                Ok(line) => other = format!("{other}\n{line}"),
                Err(error) => panic!("no JSON from the provider ({error}); other output:{other}"),
            }
        }
    }
}

fn forward_lines(stream: impl Read + Send + 'static, to: Sender<String>) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    std::thread::spawn(move || lines.into_iter().try_for_each(|line| to.send(line)));
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
