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

use serde_json::{Value, json};
use service::authz::matrix::Scope;
use uuid::Uuid;

use super::client::{REDIRECT, text};
use crate::support::ACME;

/// `tests/interop/provider.mjs` in a process of its own. It ends with its standard input, so with this process,
/// however that goes.
pub struct Provider {
    pub issuer: String,
    /// Of its confidential clients.
    pub secret: String,
    algorithms: usize,
    child: Child,
    commands: ChildStdin,
    /// A lock around it only because a static must be shareable.
    said: Mutex<Receiver<String>>,
}

impl Provider {
    /// Ready, with a key and a confidential client for each of these algorithms. `job` signs with the first of them.
    pub fn start(folder: &Path, algorithms: &[&str]) -> Self {
        let secret = Uuid::now_v7().to_string();
        let configuration = json!({
            "audience": "api://under-test",
            "scopes": Scope::ALL.map(Scope::as_str),
            "tenant": ACME.id.to_string(),
            "algorithms": algorithms,
            "secret": secret,
            "redirect": REDIRECT,
        });
        // Given as text, a module finds its packages from the working directory: nothing is copied.
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
        let (sender, said) = channel();
        pass_on(child.stdout.take().unwrap(), sender.clone());
        pass_on(child.stderr.take().unwrap(), sender);
        let mut provider = Self {
            issuer: String::new(),
            secret,
            algorithms: algorithms.len(),
            child,
            commands,
            said: Mutex::new(said),
        };
        let ready = provider.hear();
        provider.issuer = text(&ready["issuer"]);
        provider
    }

    /// Signs with new keys from now on; those from before are still published.
    pub fn rotate(&mut self) {
        self.command("rotate", 2 * self.algorithms);
    }

    /// Publishes the newest keys only.
    pub fn withdraw(&mut self) {
        self.command("withdraw", self.algorithms);
    }

    fn command(&mut self, command: &str, keys: usize) {
        writeln!(self.commands, "{command}").unwrap();
        assert_eq!(self.hear()["keys"], keys);
    }

    /// The next line of JSON. The package's own lines, which warn that this is not for production, are only of
    /// interest if none comes.
    fn hear(&mut self) -> Value {
        let said = self.said.get_mut().unwrap();
        let mut other = String::new();
        loop {
            match said.recv_timeout(Duration::from_secs(30)) {
                Ok(line) if line.starts_with('{') => return serde_json::from_str(&line).unwrap(),
                Ok(line) => other = format!("{other}\n{line}"),
                Err(error) => panic!("nothing from the provider ({error}), but:{other}"),
            }
        }
    }
}

fn pass_on(stream: impl Read + Send + 'static, to: Sender<String>) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    std::thread::spawn(move || lines.into_iter().try_for_each(|line| to.send(line)));
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
