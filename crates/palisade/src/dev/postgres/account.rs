//! Operating system account that PostgreSQL runs as.
//!
//! PostgreSQL refuses to run as root. If this program runs as root (in a container, say), the
//! server runs as `postgres` or `nobody`; else as the current user.

use std::{
    io,
    os::unix::{fs::chown, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use crate::dev::DevError;

/// The account to run as; `None` is the current user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account(Option<Ids>);

#[derive(Clone, Copy, Debug)]
struct Ids {
    user: u32,
    group: u32,
}

impl Account {
    /// Finds an account that can run PostgreSQL.
    pub(super) fn find() -> Result<Self, DevError> {
        if id(&["-u"]) != Some(0) {
            return Ok(Self(None));
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| Some(Ids { user: id(&["-u", name])?, group: id(&["-g", name])? }))
            .map(|ids| Self(Some(ids)))
            .ok_or_else(|| "PostgreSQL does not run as root, and there is no user `postgres` or `nobody`".into())
    }

    /// A command that runs as this account, with a minimal environment instead of the inherited
    /// one.
    pub(super) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        if let Self(Some(ids)) = self {
            // The standard library also drops the supplementary groups.
            command.uid(ids.user).gid(ids.group);
        }
        command
    }

    /// Makes this account the owner of a file or folder.
    pub(super) fn take_ownership(self, path: &Path) -> io::Result<()> {
        match self {
            Self(Some(ids)) => chown(path, Some(ids.user), Some(ids.group)),
            Self(None) => Ok(()),
        }
    }

    /// Whether a folder owned by `user` is safe to use: `user` is this account or the current user.
    pub(super) fn trusts_owner(self, user: u32) -> bool {
        match self {
            Self(Some(ids)) => user == ids.user || user == 0,
            Self(None) => id(&["-u"]) == Some(user),
        }
    }

    /// Whether this account can write in `folder`. It also needs search permission on every parent
    /// folder.
    pub(super) fn can_use(self, folder: &Path) -> bool {
        let mut test = self.command(Path::new("/bin/sh"));
        test.args(["-c", "test -w \"$1\" && test -x \"$1\"", "sh"]).arg(folder);
        test.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

/// Runs `id` and parses its output as a number.
fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
