//! Encryption of files for a recipient outside the service, in the age format
//! (age-encryption.org/v1, X25519 recipients) (CRYPTO-09).
//!
//! Backups are encrypted while they are written, with [`Recipient::encrypt_to`]. Exports are
//! encrypted piece by piece while they are sent, with [`AgeEncryptor`]. Restore decrypts with an
//! [`Identities`]. A truncated or changed file does not decrypt.

use std::{
    io::{self, Write as _},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

/// Why a file cannot be encrypted or decrypted.
#[derive(Debug, Error)]
pub enum AgeError {
    /// The text is not an age recipient.
    #[error("expected an age recipient, `age1…`; create one with `age-keygen`")]
    Recipient,
    /// The text is not an age identity.
    #[error("expected an age identity, one line `AGE-SECRET-KEY-1…`; create one with `age-keygen`")]
    Identity,
    /// The file has another recipient, or is not an age file.
    #[error("cannot decrypt; use the identity of a recipient of this file")]
    Decrypt(#[from] age::DecryptError),
    /// The cipher or the output failed.
    #[error("cannot encrypt")]
    Encrypt(#[source] io::Error),
}

/// A public X25519 key. The holder of the private key can decrypt.
#[derive(Clone, Debug)]
pub struct Recipient(age::x25519::Recipient);

/// Private X25519 keys, which decrypt files for their recipients.
pub struct Identities(Vec<age::x25519::Identity>);

impl Identities {
    /// Parses the texts of files that `age-keygen` wrote: comments and one key each.
    pub fn from_texts(texts: &[SecretString]) -> Result<Self, AgeError> {
        let parse = |text: &SecretString| {
            let lines = text.expose_secret().lines().map(str::trim);
            let mut keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            let (Some(key), None) = (keys.next(), keys.next()) else { return Err(AgeError::Identity) };
            key.parse().map_err(|_| AgeError::Identity)
        };
        texts.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Decrypts a file while it is read. Reading fails at a changed byte or a missing end.
    pub fn decrypt<R: io::Read>(&self, input: R) -> Result<age::stream::StreamReader<R>, AgeError> {
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        Ok(age::Decryptor::new(input)?.decrypt(identities)?)
    }
}

/// Encrypts a file piece by piece into memory. Buffers at most one chunk of 64 KiB.
pub struct AgeEncryptor {
    /// Consumed by `finish`.
    writer: age::stream::StreamWriter<Buffer>,
    output: Buffer,
}

/// Ciphertext that was not taken yet.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Recipient {
    /// Encrypts everything that is written to the returned writer, to all recipients.
    ///
    /// [`age::stream::StreamWriter::finish`] completes the file. An incomplete file does not
    /// decrypt.
    pub fn encrypt_to<W: io::Write>(recipients: &[Self], output: W) -> Result<age::stream::StreamWriter<W>, AgeError> {
        let recipients = recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(|_| AgeError::Recipient)?;
        encryptor.wrap_output(output).map_err(AgeError::Encrypt)
    }
}

impl AgeEncryptor {
    /// Begins a file.
    pub fn new(recipient: &Recipient) -> Result<Self, AgeError> {
        let output = Buffer::default();
        Ok(Self { writer: Recipient::encrypt_to(std::slice::from_ref(recipient), output.clone())?, output })
    }

    /// Appends plain text. Returns the ciphertext that is complete.
    pub fn add(&mut self, plain: &[u8]) -> Result<Vec<u8>, AgeError> {
        self.writer.write_all(plain).map_err(AgeError::Encrypt)?;
        Ok(self.output.take())
    }

    /// Completes the file. Returns the rest of the ciphertext.
    pub fn finish(self) -> Result<Vec<u8>, AgeError> {
        let output = self.writer.finish().map_err(AgeError::Encrypt)?;
        Ok(output.take())
    }
}

impl Buffer {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FromStr for Recipient {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        text.parse().map(Self).map_err(|_| AgeError::Recipient)
    }
}
