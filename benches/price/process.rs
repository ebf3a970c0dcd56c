//! Processes under measurement: started here, measured in `/proc`, and always stopped again.
//!
//! A shell supervises each program. It stops the program when the pipe from this process closes,
//! which happens however this process ends. `stack` and `main` start programs with [`Program`].

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::Failure;

/// Runs the arguments, prints their process id, and stops them when standard input closes.
const SUPERVISOR: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- >&2 &
program=$!
echo "$program"
exec >&2
{ read -r _ <&3; kill "$program"; } 2>/dev/null &
watcher=$!
wait "$program"
kill "$watcher" 2>/dev/null
"#;

/// Linux counts processor time in hundredths of a second for user space (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A running program. Dropping it stops the program and waits for its end.
pub(crate) struct Program {
    shell: Group,
    pid: u32,
}

impl Program {
    /// Starts a program with these variables, and without other variables of the service. Its
    /// output goes to the file `log`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        variables: &[(String, String)],
        log: &Path,
    ) -> Result<Self, Failure> {
        let mut command = Command::new("sh");
        command.args(["-c", SUPERVISOR, "supervisor"]).arg(program).args(arguments);
        // A group of its own: Ctrl-C reaches this process only, which then stops the program.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(log)?);
        without_settings(&mut command).envs(variables.iter().cloned());
        let mut shell = Group(command.spawn()?);
        let mut pid = String::new();
        BufReader::new(shell.0.stdout.take().unwrap()).read_line(&mut pid)?;
        Ok(Self { shell, pid: pid.trim().parse()? })
    }

    /// Processor time so far, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        stat(self.pid).map_or(0.0, |stat| stat.own)
    }

    /// Highest resident memory so far, in MiB.
    pub(crate) fn peak_memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.shell.0.try_wait(), Ok(None))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.shell.0.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !self.has_ended() {
            self.shell.signal("-KILL");
            let _ = self.shell.0.wait();
        }
    }
}

/// Removes the settings of the service from the environment of a command.
pub(crate) fn without_settings(command: &mut Command) -> &mut Command {
    let settings = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("APP_"));
    settings.fold(command, |command, name| command.env_remove(name))
}

/// Runs a command that must succeed within `limit`. Dropping the future stops it, with all that it
/// started.
pub(crate) async fn run(mut command: Command, limit: Duration) -> Result<(), Failure> {
    let what = format!("{command:?}");
    let mut group = Group(command.stdin(Stdio::null()).process_group(0).spawn()?);
    let deadline = Instant::now() + limit;
    loop {
        match group.0.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("failed ({status}): {what}").into()),
            None if Instant::now() > deadline => return Err(format!("too slow: {what}").into()),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The leader of a process group that this process started.
struct Group(Child);

impl Group {
    fn signal(&self, signal: &str) {
        let _ = Command::new("kill").args([signal, "--", &format!("-{}", self.0.id())]).status();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal("-TERM");
            let _ = self.0.wait();
        }
    }
}

struct Stat {
    parent: u32,
    own: f64,
    /// Processor time of children that have ended.
    ended_children: f64,
}

/// Reads `/proc/<pid>/stat` (proc(5)). `None` on systems without it.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may contain spaces.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let seconds = |first: usize| -> Option<f64> {
        let ticks: Result<Vec<f64>, _> =
            fields.get(first..first + 2)?.iter().map(|field| field.parse::<f64>()).collect();
        Some(ticks.ok()?.iter().sum::<f64>() / TICKS_PER_SECOND)
    };
    Some(Stat { parent: fields.get(1)?.parse().ok()?, own: seconds(11)?, ended_children: seconds(13)? })
}

pub(crate) fn parent(pid: u32) -> Option<u32> {
    stat(pid).map(|stat| stat.parent)
}

/// Processor time of a process, of its children, and of its children that have ended, in seconds.
pub(crate) fn cpu_with_children(pid: u32) -> f64 {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children: f64 = pids.filter_map(stat).filter(|stat| stat.parent == pid).map(|stat| stat.own).sum();
    children + stat(pid).map_or(0.0, |stat| stat.own + stat.ended_children)
}
