//! Kafka frames: as much of the wire protocol as fault injection needs.
//!
//! A frame is a 4-byte big-endian length and that many bytes. A request starts with API key, API version, correlation
//! id and client id; a response starts with the correlation id of its request. Bodies are read only to tell one
//! transactional request from another, and to know how the broker answered one that arrived late.

use std::io::{self, ErrorKind, Read, Write};

use anyhow::{Context, Result, bail, ensure};

/// The longest frame that is believed: the broker's own default, `socket.request.max.bytes`.
const FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKey(pub i16);

impl ApiKey {
    /// Appends records to partitions.
    pub const PRODUCE: Self = Self(0);
    /// Reads records.
    pub const FETCH: Self = Self(1);
    /// Reads the ends of partitions.
    pub const LIST_OFFSETS: Self = Self(2);
    /// Reads topics, leaders and brokers.
    pub const METADATA: Self = Self(3);
    /// Commits offsets outside a transaction.
    pub const OFFSET_COMMIT: Self = Self(8);
    /// Reads committed offsets.
    pub const OFFSET_FETCH: Self = Self(9);
    /// Asks for a group's or a transaction's coordinator.
    pub const FIND_COORDINATOR: Self = Self(10);
    /// Joins a group.
    pub const JOIN_GROUP: Self = Self(11);
    /// Keeps a group member alive.
    pub const HEARTBEAT: Self = Self(12);
    /// Leaves a group.
    pub const LEAVE_GROUP: Self = Self(13);
    /// Receives a group's assignment.
    pub const SYNC_GROUP: Self = Self(14);
    /// Fences older producers of a transactional id.
    pub const INIT_PRODUCER_ID: Self = Self(22);
    /// Adds partitions to a transaction.
    pub const ADD_PARTITIONS_TO_TXN: Self = Self(24);
    /// Adds a group's offsets to a transaction.
    pub const ADD_OFFSETS_TO_TXN: Self = Self(25);
    /// Commits or aborts a transaction.
    pub const END_TXN: Self = Self(26);
    /// Commits offsets inside a transaction.
    pub const TXN_OFFSET_COMMIT: Self = Self(28);

    /// Kafka's name of the requests that build a transaction up and end it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::PRODUCE => Some("Produce"),
            Self::INIT_PRODUCER_ID => Some("InitProducerId"),
            Self::ADD_PARTITIONS_TO_TXN => Some("AddPartitionsToTxn"),
            Self::ADD_OFFSETS_TO_TXN => Some("AddOffsetsToTxn"),
            Self::END_TXN => Some("EndTxn"),
            Self::TXN_OFFSET_COMMIT => Some("TxnOffsetCommit"),
            _ => None,
        }
    }

    /// The first version whose body uses compact strings, of the requests that name a transactional id.
    fn flexible_from(self) -> Option<i16> {
        match self {
            Self::PRODUCE => Some(9),
            Self::INIT_PRODUCER_ID => Some(2),
            Self::ADD_PARTITIONS_TO_TXN | Self::ADD_OFFSETS_TO_TXN | Self::END_TXN | Self::TXN_OFFSET_COMMIT => Some(3),
            _ => None,
        }
    }
}

/// One request of a client.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked for.
    pub api_key: ApiKey,
    /// The version of the question.
    pub api_version: i16,
    /// The number that the response will carry.
    pub correlation_id: i32,
    /// The client's name, empty if it gave none.
    pub client_id: String,
    bytes: Vec<u8>,
    body_at: usize,
}

/// The question of an `EndTxn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndTxn {
    /// Whose transaction ends.
    pub transactional_id: String,
    /// The producer id the broker gave it.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// Commit, or abort.
    pub committed: bool,
}

impl Request {
    /// Reads the header of a frame (without its length).
    ///
    /// # Errors
    /// The frame is shorter than its header says.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let mut cursor = Cursor::new(&bytes);
        let api_key = ApiKey(cursor.i16().context("api key")?);
        let api_version = cursor.i16().context("api version")?;
        let correlation_id = cursor.i32().context("correlation id")?;
        let client_id = cursor.nullable_string().context("client id")?.unwrap_or_default();
        let body_at = cursor.at;
        Ok(Self { api_key, api_version, correlation_id, client_id, bytes, body_at })
    }

    /// The whole frame without its length.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What follows the header's client id.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }

    /// The transactional id that a Produce, `InitProducerId` or transactional request names.
    pub fn transactional_id(&self) -> Option<String> {
        let flexible = self.api_version >= self.api_key.flexible_from()?;
        let mut cursor = Cursor::new(self.body());
        if flexible {
            cursor.tagged_fields().ok()?;
            cursor.compact_string().ok()?
        } else if self.api_key == ApiKey::PRODUCE && self.api_version < 3 {
            None
        } else {
            cursor.nullable_string().ok()?
        }
    }

    /// The question, if this is an `EndTxn` of a version that librdkafka speaks (0 to 2).
    pub fn end_txn(&self) -> Option<EndTxn> {
        if self.api_key != ApiKey::END_TXN || self.api_version > 2 {
            return None;
        }
        let mut cursor = Cursor::new(self.body());
        Some(EndTxn {
            transactional_id: cursor.nullable_string().ok()??,
            producer_id: cursor.i64().ok()?,
            producer_epoch: cursor.i16().ok()?,
            committed: cursor.i8().ok()? != 0,
        })
    }
}

/// What the broker answered to one request.
#[derive(Clone, Debug)]
pub struct Response {
    /// What had been asked.
    pub api_key: ApiKey,
    /// The version of the question.
    pub api_version: i16,
    bytes: Vec<u8>,
}

impl Response {
    pub(super) fn new(api_key: ApiKey, api_version: i16, bytes: Vec<u8>) -> Self {
        Self { api_key, api_version, bytes }
    }

    /// The whole frame without its length.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The first error code that is not 0, or 0, of a transactional request's answer; of a `Produce` that of the first
    /// partition. `None` for other requests and for a body that cannot be read.
    pub fn error_code(&self) -> Option<i16> {
        let mut cursor = Cursor::new(self.bytes.get(4..)?);
        match (self.api_key, self.api_version) {
            (ApiKey::END_TXN | ApiKey::ADD_OFFSETS_TO_TXN, ..=2) => cursor.throttle().and_then(|()| cursor.i16()).ok(),
            (ApiKey::ADD_PARTITIONS_TO_TXN | ApiKey::TXN_OFFSET_COMMIT, ..=2) => cursor.first_partition_error().ok(),
            (ApiKey::TXN_OFFSET_COMMIT, _) => cursor.first_partition_error_compact().ok(),
            (ApiKey::PRODUCE, ..=8) => cursor.first_produced().ok(),
            (ApiKey::PRODUCE, _) => cursor.first_produced_compact().ok(),
            _ => None,
        }
    }
}

/// A `Metadata` answer without its brokers; all else stays as it is.
///
/// # Errors
/// The version is older than librdkafka's (9), or the frame is no such answer.
pub(super) fn without_brokers(response: &[u8], api_version: i16) -> Result<Vec<u8>> {
    ensure!(api_version >= 9, "Metadata version {api_version} has no compact arrays");
    let mut cursor = Cursor::new(response);
    cursor.i32().context("correlation id")?;
    cursor.tagged_fields()?;
    cursor.i32().context("throttle time")?;
    let list_at = cursor.at;
    let brokers = cursor.unsigned_varint().context("brokers")?.saturating_sub(1);
    for _ in 0..brokers {
        cursor.i32().context("node id")?;
        cursor.compact_string().context("host")?;
        cursor.i32().context("port")?;
        cursor.compact_string().context("rack")?;
        cursor.tagged_fields()?;
    }
    let none: &[u8] = &[1];
    Ok([&response[..list_at], none, &response[cursor.at..]].concat())
}

/// An answer with another error code.
///
/// # Errors
/// It is not the answer to an `AddOffsetsToTxn` or `EndTxn` of a version up to 2, or too short.
pub(super) fn with_error(response: &[u8], api_key: ApiKey, api_version: i16, code: i16) -> Result<Vec<u8>> {
    let fixed = [ApiKey::ADD_OFFSETS_TO_TXN, ApiKey::END_TXN].contains(&api_key) && api_version <= 2;
    ensure!(fixed, "the error of {api_key:?} version {api_version} has no fixed place");
    let mut cursor = Cursor::new(response);
    cursor.i32().context("correlation id")?;
    cursor.throttle().context("throttle time")?;
    let at = cursor.at;
    cursor.i16().context("error code")?;
    Ok([&response[..at], &code.to_be_bytes(), &response[cursor.at..]].concat())
}

/// Reads one frame without its length; `None` when the peer closed between frames.
pub(super) fn read_frame(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0_u8; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes: not Kafka's protocol")));
    }
    let mut bytes = vec![0_u8; length];
    stream.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// Writes one frame in one piece.
pub(super) fn write_frame(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(&with_length(bytes))
}

/// Writes one frame in so many pieces, and pauses between two; one of few bytes in fewer pieces.
pub(super) fn write_pieces(
    stream: &mut impl Write,
    bytes: &[u8],
    pieces: usize,
    mut pause: impl FnMut(),
) -> io::Result<()> {
    let frame = with_length(bytes);
    for (number, piece) in frame.chunks(frame.len().div_ceil(pieces.max(1))).enumerate() {
        if number > 0 {
            pause();
        }
        stream.write_all(piece)?;
    }
    Ok(())
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len()).expect("a frame was read with a length that fits");
    [&length.to_be_bytes(), bytes].concat()
}

/// The correlation id of a response frame.
pub(super) fn correlation_id(response: &[u8]) -> Option<i32> {
    response.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes))
}

/// Reads Kafka's primitive types one after another.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else { bail!("{count} bytes wanted at {} of {}", self.at, self.bytes.len()) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take gives as many bytes as were asked for"))
    }

    fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn unsigned_varint(&mut self) -> Result<usize> {
        let mut value = 0_usize;
        for shift in (0..35).step_by(7) {
            let byte = self.array::<1>()?[0];
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("a varint longer than five bytes")
    }

    fn text(&mut self, length: usize) -> Result<String> {
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn nullable_string(&mut self) -> Result<Option<String>> {
        let length = self.i16()?;
        usize::try_from(length).ok().map(|length| self.text(length)).transpose()
    }

    fn compact_string(&mut self) -> Result<Option<String>> {
        let length = self.unsigned_varint()?;
        length.checked_sub(1).map(|length| self.text(length)).transpose()
    }

    fn tagged_fields(&mut self) -> Result<()> {
        for _ in 0..self.unsigned_varint()? {
            self.unsigned_varint()?;
            let length = self.unsigned_varint()?;
            self.take(length)?;
        }
        Ok(())
    }

    fn throttle(&mut self) -> Result<()> {
        self.i32().map(drop)
    }

    fn first_partition_error(&mut self) -> Result<i16> {
        self.throttle()?;
        let mut first = 0;
        for _ in 0..self.i32()? {
            self.nullable_string()?;
            for _ in 0..self.i32()? {
                self.i32()?;
                first = first_error(first, self.i16()?);
            }
        }
        Ok(first)
    }

    fn first_partition_error_compact(&mut self) -> Result<i16> {
        self.tagged_fields()?;
        self.throttle()?;
        let mut first = 0;
        for _ in 0..self.compact_length()? {
            self.compact_string()?;
            for _ in 0..self.compact_length()? {
                self.i32()?;
                first = first_error(first, self.i16()?);
                self.tagged_fields()?;
            }
            self.tagged_fields()?;
        }
        Ok(first)
    }

    fn first_produced(&mut self) -> Result<i16> {
        ensure!(self.i32()? > 0, "no topic");
        self.nullable_string()?;
        ensure!(self.i32()? > 0, "no partition");
        self.i32()?;
        self.i16()
    }

    fn first_produced_compact(&mut self) -> Result<i16> {
        self.tagged_fields()?;
        ensure!(self.compact_length()? > 0, "no topic");
        self.compact_string()?;
        ensure!(self.compact_length()? > 0, "no partition");
        self.i32()?;
        self.i16()
    }

    fn compact_length(&mut self) -> Result<usize> {
        let length = self.unsigned_varint()?;
        ensure!(length > 0, "a null array");
        Ok(length - 1)
    }
}

fn first_error(first: i16, next: i16) -> i16 {
    if first == 0 { next } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Vec<u8> {
        let mut bytes = (text.len() as i16).to_be_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    fn request(api_key: ApiKey, version: i16, body: &[u8]) -> Request {
        let bytes =
            [&api_key.0.to_be_bytes()[..], &version.to_be_bytes(), &7_i32.to_be_bytes(), &string("client"), body]
                .concat();
        Request::parse(bytes).expect("a whole header")
    }

    #[test]
    fn end_txn_is_read() {
        let body = [&string("app-1")[..], &42_i64.to_be_bytes(), &3_i16.to_be_bytes(), &[1]].concat();
        let request = request(ApiKey::END_TXN, 1, &body);
        assert_eq!((request.correlation_id, request.client_id.as_str()), (7, "client"));
        let expected = EndTxn { transactional_id: "app-1".into(), producer_id: 42, producer_epoch: 3, committed: true };
        assert_eq!(request.end_txn(), Some(expected));
        assert_eq!(request.transactional_id().as_deref(), Some("app-1"));
    }

    #[test]
    fn the_transactional_id_of_a_flexible_offset_commit_is_read() {
        let request = request(ApiKey::TXN_OFFSET_COMMIT, 3, &[0, 4, b'a', b'p', b'p', 99]);
        assert_eq!(request.transactional_id().as_deref(), Some("app"));
    }

    #[test]
    fn a_short_header_is_an_error() {
        assert!(Request::parse(vec![0, 26, 0, 1, 0]).is_err());
        assert!(Request::parse(vec![0, 26, 0, 1, 0, 0, 0, 1, 0, 9, b'x']).is_err());
    }

    #[test]
    fn error_codes_are_found_in_answers() {
        let plain = [&1_i32.to_be_bytes()[..], &0_i32.to_be_bytes(), &48_i16.to_be_bytes()].concat();
        assert_eq!(Response::new(ApiKey::END_TXN, 1, plain.clone()).error_code(), Some(48));
        let told = with_error(&plain, ApiKey::END_TXN, 1, -1).expect("its error has a fixed place");
        assert_eq!(Response::new(ApiKey::END_TXN, 1, told).error_code(), Some(-1));
        assert!(with_error(&plain, ApiKey::PRODUCE, 1, -1).is_err());
        // Correlation id, no tags, throttle, one topic "t", two partitions: 0 fine, 1 refused with 47.
        let compact =
            [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 2, b't', 3][..], &[0, 0, 0, 0, 0, 0, 0], &[0, 0, 0, 1, 0, 47, 0], &[0, 0]]
                .concat();
        assert_eq!(Response::new(ApiKey::TXN_OFFSET_COMMIT, 3, compact).error_code(), Some(47));
        // Correlation id, one topic "t", partition 5 refused with 45.
        let produced = [&[0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1][..], &[0, 0, 0, 5, 0, 45]].concat();
        assert_eq!(Response::new(ApiKey::PRODUCE, 7, produced).error_code(), Some(45));
        let produced = [&[0, 0, 0, 1, 0, 2, 2, b't', 2][..], &[0, 0, 0, 5, 0, 45]].concat();
        assert_eq!(Response::new(ApiKey::PRODUCE, 10, produced).error_code(), Some(45));
    }
}
