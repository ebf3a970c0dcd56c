//! Files that leave the service for somebody who has a key of their own, in the format of age (age-encryption.org/v1).

use std::{
    fmt,
    io::{self, Write as _},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use thiserror::Error;

/// Why a file cannot be encrypted.
#[derive(Debug, Error)]
pub enum EnvelopeError {
    /// The text names nobody.
    #[error("expected a recipient of age, `age1…` (`age-keygen` makes them)")]
    Recipient,
    /// Encryption failed.
    #[error("cannot encrypt")]
    Encrypt(#[source] io::Error),
}

/// Who can read a file: the public half of an X25519 key.
#[derive(Clone)]
pub struct Recipient(age::x25519::Recipient);

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
    /// Encrypts a file to whatever is written to, from now on. [`age::stream::StreamWriter::finish`] ends it; a file that
    /// was not ended does not decrypt.
    pub fn encrypt_to<W: io::Write>(&self, output: W) -> Result<age::stream::StreamWriter<W>, EnvelopeError> {
        let to = std::iter::once(&self.0 as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(to).map_err(|_| EnvelopeError::Recipient)?;
        encryptor.wrap_output(output).map_err(EnvelopeError::Encrypt)
    }
}

impl Envelope {
    /// An empty file.
    pub fn new(to: &Recipient) -> Result<Self, EnvelopeError> {
        let sink = Sink::default();
        Ok(Self { writer: to.encrypt_to(sink.clone())?, sink })
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

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").finish_non_exhaustive()
    }
}
