//! Reads records, one at a time, and checks each: its frame, its content, and whether it may stand where it stands.

use std::io::{self, Read};

use super::{
    Entry, HEAD_BYTES, Head, LogError, MAGIC, PREFIX_BYTES, RECORD_BYTES_MAX, VERSION, head_checksum,
};

/// Latest time of a round: the year 2262. Sums with it stay far from overflow.
const TIME_MAX: u64 = i64::MAX.cast_unsigned();
/// Largest balance that the operator gives: sums with it stay far from overflow.
const CYCLES_MAX: u128 = 1 << 100;

/// Reads a log from its start.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    offset: u64,
    place: Place,
    payload: Vec<u8>,
    rounds: u64,
    messages: u64,
    queries: u64,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    Between,
    InQuery,
    InRound,
    Ended,
}

impl<R: Read> Reader<R> {
    /// Reads magic number and version.
    ///
    /// # Errors
    /// It is no log, or one of another version.
    pub fn begin(mut from: R) -> Result<Self, LogError> {
        let prefix = read_up_to(&mut from, PREFIX_BYTES, 0)?;
        let magic = &prefix[..prefix.len().min(MAGIC.len())];
        if prefix.is_empty() {
            return Err(LogError::Foreign("the file is empty"));
        }
        if !MAGIC.starts_with(magic) {
            return Err(LogError::Foreign("its first 8 bytes are others"));
        }
        let Some(version) = prefix.get(MAGIC.len()..).and_then(|bytes| bytes.try_into().ok()) else {
            return Err(LogError::Truncated { offset: 0, what: "in the middle of its first 12 bytes" });
        };
        match u32::from_le_bytes(version) {
            VERSION => {}
            found => return Err(LogError::Version { found }),
        }
        Ok(Self {
            from,
            offset: PREFIX_BYTES,
            place: Place::Start,
            payload: Vec::new(),
            rounds: 0,
            messages: 0,
            queries: 0,
        })
    }

    /// Where the next record starts.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record; `None` after the last. Called again after an error, it gives nonsense.
    ///
    /// # Errors
    /// The log ends early, or the record is damaged or out of place.
    pub fn read(&mut self) -> Result<Option<Entry<'_>>, LogError> {
        let offset = self.offset;
        let damaged = |what: &str| LogError::Damaged { offset, what: what.to_owned() };
        let head = read_up_to(&mut self.from, HEAD_BYTES as u64, offset)?;
        if head.is_empty() {
            return match self.place {
                Place::Ended => Ok(None),
                _ => Err(LogError::Truncated { offset, what: "without its last record" }),
            };
        }
        if self.place == Place::Ended {
            return Err(damaged("it follows the last one"));
        }
        let &[l0, l1, l2, l3, p0, p1, p2, p3, h0, h1, h2, h3] = head.as_slice() else {
            return Err(LogError::Truncated { offset, what: "in the middle of a record's head" });
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let checksum = u32::from_le_bytes([p0, p1, p2, p3]);
        if u32::from_le_bytes([h0, h1, h2, h3]) != head_checksum(offset, length, checksum) {
            return Err(damaged("the checksum of its head is wrong"));
        }
        if length > RECORD_BYTES_MAX {
            return Err(damaged(&format!("it has {length} bytes, and {RECORD_BYTES_MAX} are allowed")));
        }
        self.payload = read_up_to(&mut self.from, length.into(), offset)?;
        if self.payload.len() != length as usize {
            return Err(LogError::Truncated { offset, what: "in the middle of a record" });
        }
        if crc32fast::hash(&self.payload) != checksum {
            return Err(damaged("the checksum of its content is wrong"));
        }
        let (entry, rest) = postcard::take_from_bytes::<Entry<'_>>(&self.payload)
            .map_err(|error| damaged(&format!("its content doesn't decode: {error}")))?;
        if !rest.is_empty() {
            return Err(damaged("bytes follow its content"));
        }
        let counts = (self.rounds, self.messages, self.queries);
        self.place = place(self.place, &entry, counts).map_err(damaged)?;
        match entry {
            Entry::Round { .. } => self.rounds += 1,
            Entry::Submit { .. } => self.messages += 1,
            Entry::Query { .. } => self.queries += 1,
            Entry::Head(_) | Entry::Create { .. } | Entry::Observed(_) | Entry::End { .. } => {}
        }
        self.offset += (HEAD_BYTES + self.payload.len()) as u64;
        Ok(Some(entry))
    }
}

/// Where a log is after `entry`, if that may come next.
fn place(now: Place, entry: &Entry<'_>, counts: (u64, u64, u64)) -> Result<Place, &'static str> {
    match (now, entry) {
        (Place::Start, Entry::Head(_)) => Ok(Place::Between),
        (Place::Start, _) => Err("the first one must say which subnet it is"),
        (_, Entry::Head(_)) => Err("only the first one says which subnet it is"),
        (Place::Between, Entry::Create { cycles, .. }) if *cycles > CYCLES_MAX => {
            Err("more cycles than there can be")
        }
        (Place::Between, Entry::Round { time, .. }) if *time > TIME_MAX => {
            Err("the round's time is after the year 2262")
        }
        (Place::Between, Entry::Create { .. } | Entry::Submit { .. }) => Ok(Place::Between),
        (Place::Between, Entry::Query { .. }) => Ok(Place::InQuery),
        (Place::Between, Entry::Round { .. }) => Ok(Place::InRound),
        (Place::Between, Entry::End { rounds, messages, queries })
            if (*rounds, *messages, *queries) == counts =>
        {
            Ok(Place::Ended)
        }
        (Place::Between, Entry::End { .. }) => Err("it counts other rounds or messages than the log has"),
        (Place::InQuery, Entry::Observed(observation)) if observation.is_of_query() => {
            Ok(if observation.is_last() { Place::Between } else { now })
        }
        (Place::InRound, Entry::Observed(observation)) if observation.is_of_round() => {
            Ok(if observation.is_last() { Place::Between } else { now })
        }
        (_, Entry::Observed(_)) => Err("it tells of something that didn't run"),
        (Place::InQuery | Place::InRound, _) => Err("what ran before it has no end"),
        (Place::Ended, _) => Err("it follows the last one"),
    }
}

/// At most `count` bytes, fewer where the file ends. What isn't there is not allocated.
fn read_up_to(from: &mut impl Read, count: u64, offset: u64) -> Result<Vec<u8>, LogError> {
    let mut bytes = Vec::new();
    io::copy(&mut from.by_ref().take(count), &mut bytes).map_err(|cause| LogError::Read { offset, cause })?;
    Ok(bytes)
}

/// What a log holds, found by reading all of it.
#[derive(Debug)]
pub struct Survey {
    /// Which subnet.
    pub head: Head,
    /// Whole rounds.
    pub rounds: u64,
    /// Users' messages, refused ones included, up to the last whole round.
    pub messages: u64,
    /// Queries up to there.
    pub queries: u64,
    /// Where its last whole round ends, or its first record.
    pub rounds_end: u64,
    /// How much of it there is.
    pub extent: Extent,
}

/// How much there is of a log.
#[derive(Debug)]
pub enum Extent {
    /// All of it.
    Whole,
    /// It ends early: whole rounds up to this offset, and why nothing after it counts.
    Until(u64, LogError),
}

/// Reads a log to its end. One that ends early is taken up to its last whole round.
///
/// # Errors
/// It is no log, of another version, damaged, or ends before it says of which subnet it is.
pub fn survey(from: impl Read) -> Result<Survey, LogError> {
    let mut reader = Reader::begin(from)?;
    let head = match reader.read()? {
        Some(Entry::Head(head)) => head,
        Some(_) | None => return Err(LogError::Foreign("it doesn't say of which subnet it is")),
    };
    let rounds_end = reader.offset();
    let mut whole = Survey { head, rounds: 0, messages: 0, queries: 0, rounds_end, extent: Extent::Whole };
    loop {
        let round_ended = match reader.read() {
            Ok(Some(Entry::Observed(observation))) => observation.is_of_round() && observation.is_last(),
            Ok(Some(_)) => false,
            Ok(None) => return Ok(whole.counting(&reader)),
            Err(error @ LogError::Truncated { .. }) => {
                return Ok(Survey { extent: Extent::Until(whole.rounds_end, error), ..whole });
            }
            Err(error) => return Err(error),
        };
        if round_ended {
            whole = Survey { rounds_end: reader.offset(), ..whole.counting(&reader) };
        }
    }
}

impl Survey {
    fn counting<R>(self, reader: &Reader<R>) -> Self {
        let Reader { rounds, messages, queries, .. } = *reader;
        Self { rounds, messages, queries, ..self }
    }
}
