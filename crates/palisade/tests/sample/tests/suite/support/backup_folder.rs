//! A folder with backups, the keys of their recipients, and the commands that write and restore
//! them.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Output, Stdio},
};

use palisade::dev::database::Urls;
use secrecy::{ExposeSecret as _, SecretString};

use super::{SERVICE, programs, scratch_folder};

/// A folder for backups, with the keys of their recipients: `data-key` and `keys-key`.
pub struct BackupFolder {
    pub folder: PathBuf,
    pub programs: PathBuf,
    pub recipient: String,
    pub keys_recipient: String,
}

impl BackupFolder {
    pub async fn new() -> Self {
        let folder = scratch_folder().join(format!("backup-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&folder).unwrap();
        let (recipient, keys_recipient) = (String::new(), String::new());
        let backups = Self { folder, programs: programs().await, recipient, keys_recipient };
        let recipient = backups.add_key("data-key", 0o400);
        let keys_recipient = backups.add_key("keys-key", 0o400);
        Self { recipient, keys_recipient, ..backups }
    }

    /// Writes an age identity as `age-keygen` does; its recipient.
    pub fn add_key(&self, name: &str, mode: u32) -> String {
        let key = age::x25519::Identity::generate();
        let text =
            format!("# created: today\n# public key: {}\n{}\n", key.to_public(), key.to_string().expose_secret());
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
        key.to_public().to_string()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn run(&self, arguments: &[&str], variable: &str, url: &SecretString) -> Output {
        self.run_with(&[], arguments, variable, url)
    }

    /// The same, with this standard input.
    pub fn run_with(&self, input: &[u8], arguments: &[&str], variable: &str, url: &SecretString) -> Output {
        let mut command = SERVICE.binary();
        command.current_dir(&self.folder).args(arguments).env("APP_PROFILE", "development");
        command.env("APP_PG_BIN", &self.programs).env(variable, url.expose_secret());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The command may exit before it has read all input.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Writes the data to `file` and the keys to `keys`.
    pub fn backup(&self, url: &SecretString, file: &str, keys: &str) -> Output {
        let arguments = ["backup", "--to", &self.recipient, "--keys-to", &self.keys_recipient, "--keys", keys, file];
        self.run(&arguments, "APP_DATABASE__BACKUP_URL", url)
    }

    /// Writes the keys to `file`.
    pub fn backup_keys(&self, urls: &Urls, file: &str) -> Output {
        let arguments = ["backup-keys", "--to", &self.keys_recipient, file];
        self.run(&arguments, "APP_DATABASE__BACKUP_URL", &urls.backup)
    }

    /// Restores with both identities.
    pub fn restore(&self, urls: &Urls, arguments: &[&str]) -> Output {
        let restore = ["restore", "--identity", "data-key", "--identity", "keys-key"];
        self.run(&[&restore, arguments].concat(), "APP_DATABASE__OWNER_URL", &urls.owner)
    }
}

pub fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

#[track_caller]
pub fn assert_succeeds(output: &Output) -> String {
    let text = text_of(output);
    assert!(output.status.success(), "{text}");
    text
}

#[track_caller]
pub fn assert_fails(output: &Output, message: &str) {
    let text = text_of(output);
    assert!(!output.status.success() && text.contains(message), "{text}");
}
