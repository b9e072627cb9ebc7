//! Watches the bytes of a connection for requests whose length can be understood in two ways (RFC 9112 §6.3, §11.2):
//! both `Transfer-Encoding` and `Content-Length`, several of either, or a coding other than `chunked`. Pure.
//!
//! hyper decides such cases as the standard allows and hides that there was a choice; a proxy in front may have decided
//! otherwise, and then one side's body is the other side's next request. This gateway refuses them.

use std::fmt;

/// The longest line of a head or of chunk framing that is looked at, in bytes. hyper refuses a head of that size.
const MAX_LINE: usize = 64 * 1024;

/// Why a request's length is ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguity {
    /// Both `Transfer-Encoding` and `Content-Length`.
    Both,
    /// More than one `Content-Length`.
    Lengths,
    /// More than one `Transfer-Encoding`, or one that is not just `chunked`.
    Coding,
    /// A line that is too long, or chunk framing that is no such thing.
    Malformed,
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "send Content-Length or Transfer-Encoding, not both",
            Self::Lengths => "send one Content-Length",
            Self::Coding => "send one Transfer-Encoding, and \"chunked\" as its only coding",
            Self::Malformed => "send well-formed chunks",
        })
    }
}

/// What is known of a connection's bytes.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    line: Vec<u8>,
    head: Head,
    /// Requests whose heads began, the current one included.
    begun: u64,
    refused: Option<(u64, Ambiguity)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between requests: blank lines are skipped (RFC 9112 §2.2).
    #[default]
    Between,
    Headers,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    Trailers,
    /// Nothing more is looked at; every further request is refused.
    Lost,
}

#[derive(Debug, Default)]
struct Head {
    lengths: u32,
    length: Option<u64>,
    codings: u32,
    chunked: bool,
}

impl Framing {
    /// The first request that is refused, counted from 1, and why. It and all after it must not be served.
    pub const fn refused(&self) -> Option<(u64, Ambiguity)> {
        self.refused
    }

    /// Whether a head has begun and not ended.
    pub fn inside_head(&self) -> bool {
        self.state == State::Headers || (self.state == State::Between && !self.line.is_empty())
    }

    /// Takes the next bytes of the connection, cut anywhere.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Lost => return,
                State::Body(left) | State::ChunkData(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[taken..];
                    let left = left - taken as u64;
                    self.state = match self.state {
                        State::Body(_) if left == 0 => State::Between,
                        State::Body(_) => State::Body(left),
                        _ if left == 0 => State::ChunkSize,
                        _ => State::ChunkData(left),
                    };
                }
                State::Between | State::Headers | State::ChunkSize | State::Trailers => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let part = &bytes[..end.unwrap_or(bytes.len())];
                    if self.line.len() + part.len() > MAX_LINE {
                        return self.lose();
                    }
                    self.line.extend_from_slice(part);
                    bytes = &bytes[(part.len() + usize::from(end.is_some()))..];
                    if end.is_some() {
                        let mut line = std::mem::take(&mut self.line);
                        if line.last() == Some(&b'\r') {
                            line.pop();
                        }
                        self.line(&line);
                        line.clear();
                        self.line = line;
                    }
                }
            }
        }
    }

    /// A line without its end.
    fn line(&mut self, line: &[u8]) {
        match self.state {
            State::Between if line.is_empty() => {}
            State::Between => {
                self.begun += 1;
                self.head = Head::default();
                self.state = State::Headers;
            }
            State::Headers if line.is_empty() => self.head_end(),
            State::Headers => self.header(line),
            State::ChunkSize => match chunk_size(line) {
                Some(0) => self.state = State::Trailers,
                // With the line end behind the data.
                Some(size) => self.state = State::ChunkData(size + 2),
                None => self.lose(),
            },
            State::Trailers if line.is_empty() => self.state = State::Between,
            State::Trailers | State::Body(_) | State::ChunkData(_) | State::Lost => {}
        }
    }

    fn header(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.head.lengths += 1;
            self.head.length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.head.codings += 1;
            self.head.chunked = value.eq_ignore_ascii_case(b"chunked");
        }
    }

    fn head_end(&mut self) {
        let Head { lengths, length, codings, chunked } = self.head;
        let ambiguity = match (codings, lengths) {
            (0, 0) => return self.state = State::Between,
            (0, 1) => match length {
                Some(0) => return self.state = State::Between,
                Some(length) => return self.state = State::Body(length),
                // hyper answers 400 by itself.
                None => Ambiguity::Lengths,
            },
            (0, _) => Ambiguity::Lengths,
            (1, 0) if chunked => return self.state = State::ChunkSize,
            (_, 0) => Ambiguity::Coding,
            _ => Ambiguity::Both,
        };
        self.refuse(self.begun, ambiguity);
    }

    /// Chunks of the current request, or the head of the next one, cannot be followed.
    fn lose(&mut self) {
        let request = if self.state == State::Headers { self.begun } else { self.begun + 1 };
        self.refuse(request, Ambiguity::Malformed);
    }

    fn refuse(&mut self, request: u64, ambiguity: Ambiguity) {
        self.refused = Some((request, ambiguity));
        self.state = State::Lost;
        self.line = Vec::new();
    }
}

/// `chunk-size [ chunk-ext ]` (RFC 9112 §7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let digits =
        std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u64::from_str_radix(digits, 16).ok().filter(|size| *size <= u64::MAX - 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

    fn refused(text: &str) -> Option<(u64, Ambiguity)> {
        let mut framing = Framing::default();
        framing.feed(text.as_bytes());
        framing.refused()
    }

    fn put(headers: &str, body: &str) -> String {
        format!("PUT /a HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{body}")
    }

    #[test]
    fn ordinary_requests_pass_one_after_the_other() {
        let chunked = put("Transfer-Encoding: chunked", "5;x=y\r\nhello\r\n00\r\nTrailer: x\r\n\r\n");
        let text =
            [GET, &put("Content-Length: 5", "hello"), "\r\n", &chunked, &put("content-length:0", ""), GET]
                .concat();
        assert_eq!(refused(&text), None);
        let bare_line_feeds = text.replace('\r', "");
        assert_eq!(refused(&bare_line_feeds.replace("hello\n0", "hello\r\n0")), None);
    }

    #[test]
    fn a_length_that_can_be_understood_in_two_ways_is_refused() {
        let cases = [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", Ambiguity::Both),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5", Ambiguity::Both),
            ("Content-Length: 5\r\ncontent-length: 5", Ambiguity::Lengths),
            ("Content-Length: 5\r\nContent-Length: 6", Ambiguity::Lengths),
            ("Content-Length: five", Ambiguity::Lengths),
            ("Transfer-Encoding: gzip, chunked", Ambiguity::Coding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Ambiguity::Coding),
            ("Transfer-Encoding: xchunked", Ambiguity::Coding),
        ];
        for (headers, ambiguity) in cases {
            let text = [GET, &put(headers, "hello")].concat();
            assert_eq!(refused(&text), Some((2, ambiguity)), "{headers}");
        }
    }

    #[test]
    fn after_chunks_that_cannot_be_followed_nothing_is_served() {
        assert_eq!(refused(&put("Transfer-Encoding: chunked", "zz\r\n")), Some((2, Ambiguity::Malformed)));
        assert_eq!(
            refused(&put("Transfer-Encoding: chunked", "fffffffffffffffff\r\n")),
            Some((2, Ambiguity::Malformed))
        );
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut framing = Framing::default();
        for _ in 0..1000 {
            framing.feed(&[b'x'; 1000]);
        }
        assert_eq!(framing.refused(), Some((1, Ambiguity::Malformed)));
        assert_eq!(framing.line.capacity(), 0);
    }

    #[test]
    fn a_body_that_looks_like_a_request_is_none() {
        let inner = put("Content-Length: 1\r\nContent-Length: 2", "xx");
        let text = put(&format!("Content-Length: {}", inner.len()), &inner);
        assert_eq!(refused(&text), None);
    }

    #[test]
    fn a_head_that_has_begun_is_told_from_none() {
        let mut framing = Framing::default();
        assert!(!framing.inside_head());
        framing.feed(b"GE");
        assert!(framing.inside_head());
        framing.feed(b"T / HTTP/1.1\r\nHost: x\r\n");
        assert!(framing.inside_head());
        framing.feed(b"\r\n");
        assert!(!framing.inside_head());
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_changes_nothing(
            cuts in proptest::collection::vec(1_usize..7, 1..60),
            headers in "(Content-Length: [0-9]{1,2}\r\n|Transfer-Encoding: chunked\r\n|X: y\r\n){0,3}",
            body in "(5\r\nhello\r\n|0\r\n\r\n|[a-z\r\n:]{0,8}){0,4}",
        ) {
            let text = [GET, "PUT /a HTTP/1.1\r\n", &headers, "\r\n", &body, GET].concat();
            let mut framing = Framing::default();
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                let (part, more) = rest.split_at((*cut).min(rest.len()));
                framing.feed(part);
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(framing.refused(), refused(&text));
        }
    }
}
