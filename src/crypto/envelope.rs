//! Files that leave the service for somebody who has a key of their own, in the format of age (age-encryption.org/v1).

use std::{
    fmt,
    io::{self, Write as _},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

/// Why a file cannot be encrypted.
#[derive(Debug, Error)]
pub enum EnvelopeError {
    /// The text names nobody.
    #[error("expected a recipient of age, `age1…` (`age-keygen` makes them)")]
    Recipient,
    /// The text has no key.
    #[error("expected the key of an age recipient, `AGE-SECRET-KEY-1…` (`age-keygen` makes them)")]
    Identity,
    /// It is for others, or no such file.
    #[error("cannot decrypt")]
    Decrypt(#[from] age::DecryptError),
    /// Encryption failed.
    #[error("cannot encrypt")]
    Encrypt(#[source] io::Error),
}

/// Who can read a file: the public half of an X25519 key.
#[derive(Clone)]
pub struct Recipient(age::x25519::Recipient);

/// What opens files that were encrypted to somebody.
pub struct Identity(age::x25519::Identity);

impl Identity {
    /// Reads a file as `age-keygen` writes it: comments, and a key.
    pub fn from_text(text: &SecretString) -> Result<Self, EnvelopeError> {
        let lines = text.expose_secret().lines().map(str::trim);
        let mut keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(key), None) = (keys.next(), keys.next()) else { return Err(EnvelopeError::Identity) };
        key.parse().map(Self).map_err(|_| EnvelopeError::Identity)
    }

    /// What was encrypted, as it is read. Reading fails where a byte was changed or the end is missing.
    pub fn decrypt<R: io::Read>(&self, input: R) -> Result<age::stream::StreamReader<R>, EnvelopeError> {
        Ok(age::Decryptor::new(input)?.decrypt(std::iter::once(&self.0 as &dyn age::Identity))?)
    }
}

/// A file being encrypted, in pieces: what goes in as plain text comes out encrypted, later or now. Keeps one chunk of
/// 64 KiB.
pub struct Envelope {
    /// Taken when it is finished.
    writer: age::stream::StreamWriter<Sink>,
    sink: Sink,
}

/// Where the encrypted text waits to be taken.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Recipient {
    /// Encrypts to each of them what is written from now on. [`age::stream::StreamWriter::finish`] ends the file; one that was
    /// not ended does not decrypt.
    pub fn encrypt_to<W: io::Write>(all: &[Self], output: W) -> Result<age::stream::StreamWriter<W>, EnvelopeError> {
        let to = all.iter().map(|recipient| &recipient.0 as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(to).map_err(|_| EnvelopeError::Recipient)?;
        encryptor.wrap_output(output).map_err(EnvelopeError::Encrypt)
    }
}

impl Envelope {
    /// An empty file.
    pub fn new(to: &Recipient) -> Result<Self, EnvelopeError> {
        let sink = Sink::default();
        Ok(Self { writer: Recipient::encrypt_to(std::slice::from_ref(to), sink.clone())?, sink })
    }

    /// Adds to the file, and gives what is ready of it.
    pub fn add(&mut self, plain: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        self.writer.write_all(plain).map_err(EnvelopeError::Encrypt)?;
        Ok(self.sink.take())
    }

    /// The rest of the file.
    pub fn finish(self) -> Result<Vec<u8>, EnvelopeError> {
        let sink = self.writer.finish().map_err(EnvelopeError::Encrypt)?;
        Ok(sink.take())
    }
}

impl Sink {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FromStr for Recipient {
    type Err = EnvelopeError;

    fn from_str(text: &str) -> Result<Self, EnvelopeError> {
        text.parse().map(Self).map_err(|_| EnvelopeError::Recipient)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").finish_non_exhaustive()
    }
}
