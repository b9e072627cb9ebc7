//! The data types of MQTT 5 §1.5, read from one packet's bytes. Nothing here allocates more than it was sent.

use super::error::DecodeError;
use bytes::{Buf, Bytes};

/// What is left of a packet.
#[derive(Debug)]
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.0.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.0.split_to(length))
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.0.try_get_u8().map_err(|_| DecodeError::Truncated)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.0.try_get_u16().map_err(|_| DecodeError::Truncated)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.0.try_get_u32().map_err(|_| DecodeError::Truncated)
    }

    /// A byte that is 0 or 1.
    pub(super) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::PropertyValue),
        }
    }

    /// A packet identifier, which is not 0 (MQTT-2.2.1-3).
    pub(super) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::PacketIdZero),
            id => Ok(id),
        }
    }

    /// A variable byte integer in its shortest form (MQTT 5 §1.5.5).
    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        match varint(&self.0) {
            Ok(Some(found)) if found.shortest => {
                self.0.advance(found.bytes);
                Ok(found.value)
            }
            Ok(Some(_)) | Err(_) => Err(DecodeError::RemainingLength),
            Ok(None) => Err(DecodeError::Truncated),
        }
    }

    /// Binary data: two bytes of length, then so many bytes (MQTT 5 §1.5.6).
    pub(super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A text: UTF-8 without NUL (MQTT 5 §1.5.4).
    pub(super) fn text(&mut self) -> Result<String, DecodeError> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| DecodeError::NotUtf8)?;
        if text.contains('\0') {
            return Err(DecodeError::Nul);
        }
        Ok(text.to_owned())
    }
}

/// A variable byte integer at the start of some bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Varint {
    pub(super) value: u32,
    /// How many bytes it takes, 1 to 4.
    pub(super) bytes: usize,
    /// Whether fewer bytes could not have held it.
    pub(super) shortest: bool,
}

/// Reads a variable byte integer; nothing as long as its end is missing.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<Varint>, DecodeError> {
    let mut value = 0_u32;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some(Varint { value, bytes: index + 1, shortest: index == 0 || byte != 0 }));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(DecodeError::RemainingLength) }
}
