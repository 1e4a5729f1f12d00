//! Appends records.

use std::io::Write;

use super::{
    AppendError, Entry, HEAD_BYTES, Head, MAGIC, PREFIX_BYTES, RECORD_BYTES_MAX, VERSION, head_checksum,
};

/// Writes a log. Nothing of it is buffered here.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    offset: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a log.
    ///
    /// # Errors
    /// Writing failed.
    pub fn begin(mut out: W, head: Head) -> Result<Self, AppendError> {
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        let mut writer = Self { out, offset: PREFIX_BYTES };
        writer.append(&Entry::Head(head))?;
        Ok(writer)
    }

    /// Goes on with a log whose records end at `offset`, where `out` stands.
    pub fn resume(out: W, offset: u64) -> Self {
        Self { out, offset }
    }

    /// Appends a record.
    ///
    /// # Errors
    /// Writing failed, or the record is too long; what was appended before stands.
    pub fn append(&mut self, entry: &Entry<'_>) -> Result<(), AppendError> {
        let payload = postcard::to_stdvec(entry)?;
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length <= RECORD_BYTES_MAX)
            .ok_or(AppendError::TooLong(payload.len()))?;
        let checksum = crc32fast::hash(&payload);
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..8].copy_from_slice(&checksum.to_le_bytes());
        head[8..].copy_from_slice(&head_checksum(self.offset, length, checksum).to_le_bytes());
        self.out.write_all(&head)?;
        self.out.write_all(&payload)?;
        self.offset += (HEAD_BYTES + payload.len()) as u64;
        Ok(())
    }

    /// Bytes written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// What it writes to.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// Hands what `out` buffers to the operating system.
    ///
    /// # Errors
    /// Writing failed.
    pub fn flush(&mut self) -> Result<(), AppendError> {
        Ok(self.out.flush()?)
    }

    /// Gives the writer back, flushed.
    ///
    /// # Errors
    /// Writing failed.
    pub fn into_inner(mut self) -> Result<W, AppendError> {
        self.flush()?;
        Ok(self.out)
    }
}
