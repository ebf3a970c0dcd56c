//! What passes through, and its SHA-256.

use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256};

use super::hex;

/// Passes on what is written to it, and knows the digest of that.
pub struct Digested<T> {
    inner: T,
    context: Context,
}

impl<T> Digested<T> {
    /// Nothing has passed yet.
    pub fn new(inner: T) -> Self {
        Self { inner, context: Context::new(&SHA256) }
    }

    /// What it passed on to, and the SHA-256 of all that did, in hexadecimal digits.
    pub fn finish(self) -> (T, String) {
        (self.inner, hex(self.context.finish().as_ref()))
    }
}

impl<W: Write> Write for Digested<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.context.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T> std::fmt::Debug for Digested<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digested").finish_non_exhaustive()
    }
}
