//! A writer that computes the SHA-256 digest of everything that passes through it.
//!
//! [`crate::ops`] wraps the output file of a backup with it, so that the digest costs no second
//! read, and the copy that a restore makes.

use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256};

use super::hex;

/// Passes all bytes on to another writer and computes their SHA-256 digest.
pub struct Sha256Writer<W> {
    inner: W,
    context: Context,
}

impl<W> Sha256Writer<W> {
    /// Wraps a writer.
    pub fn new(inner: W) -> Self {
        Self { inner, context: Context::new(&SHA256) }
    }

    /// Returns the writer, and the digest of all bytes that it accepted in hexadecimal digits.
    pub fn finish(self) -> (W, String) {
        (self.inner, hex(self.context.finish().as_ref()))
    }
}

impl<W: Write> Write for Sha256Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.context.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
