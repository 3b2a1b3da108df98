//! Everything that bot and exchange say to each other, as a hash.
//!
//! Left out is what is random by the nature of its protocol and says nothing: the signatures of tokens, the keys of
//! WebSocket handshakes and the masks of frames; and the header Date, which hyper takes from the wall clock.

use sha2::{Digest, Sha256};

const NOT_OURS: [&str; 3] = ["date:", "sec-websocket-key:", "sec-websocket-accept:"];

#[derive(Default)]
pub struct Transcript {
    hash: Sha256,
    connections: u64,
    pub requests: u64,
    pub replies: u64,
    /// Of WebSockets; what arrives together counts once.
    pub frames: u64,
}

impl Transcript {
    pub fn add(&mut self, connection: u64, direction: u8, bytes: &[u8]) {
        self.hash.update(connection.to_be_bytes());
        self.hash.update([direction]);
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
    }

    /// The hash so far, in hexadecimal.
    pub fn hash(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// One connection of it.
pub struct Wire {
    connection: u64,
    is_web_socket: bool,
    has_sent: bool,
    has_answered: bool,
    /// The beginning of a frame of the bot.
    partial: Vec<u8>,
}

impl Wire {
    pub fn new(transcript: &mut Transcript, is_web_socket: bool) -> Self {
        transcript.connections += 1;
        let connection = transcript.connections;
        Self { connection, is_web_socket, has_sent: false, has_answered: false, partial: Vec::new() }
    }

    /// Bytes of the bot.
    pub fn sent(&mut self, transcript: &mut Transcript, bytes: &[u8]) {
        if !self.has_sent {
            self.has_sent = true;
            transcript.requests += 1;
            transcript.add(self.connection, b'>', &head(bytes));
        } else if self.is_web_socket {
            self.partial.extend_from_slice(bytes);
            while let Some(frame) = frame(&mut self.partial) {
                transcript.frames += 1;
                transcript.add(self.connection, b'>', &without_signatures(&frame));
            }
        } else {
            transcript.add(self.connection, b'>', bytes);
        }
    }

    /// Bytes of the exchange.
    pub fn answered(&mut self, transcript: &mut Transcript, bytes: &[u8]) {
        if self.has_answered {
            transcript.frames += u64::from(self.is_web_socket);
            transcript.add(self.connection, b'<', bytes);
        } else {
            self.has_answered = true;
            transcript.replies += 1;
            transcript.add(self.connection, b'<', &head(bytes));
        }
    }
}

/// An HTTP message without the headers that are [`NOT_OURS`].
fn head(message: &[u8]) -> Vec<u8> {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(message.len());
    let (head, body) = message.split_at(end);
    let lines = head.split_inclusive(|byte| *byte == b'\n').filter(|line| {
        let line = line.to_ascii_lowercase();
        !NOT_OURS.iter().any(|name| line.starts_with(name.as_bytes()))
    });
    let mut kept = without_signatures(&lines.collect::<Vec<_>>().concat());
    kept.extend_from_slice(body);
    kept
}

/// The same with every token cut after its claims.
fn without_signatures(bytes: &[u8]) -> Vec<u8> {
    let (mut kept, mut rest) = (Vec::new(), bytes);
    while let Some(at) = rest.windows(3).position(|three| three == b"eyJ") {
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let length = rest[at..].iter().take_while(|byte| is_token(byte)).count();
        let token = &rest[at..at + length];
        let claims = token.iter().rposition(|byte| *byte == b'.').unwrap_or(length);
        kept.extend_from_slice(&rest[..at + claims]);
        rest = &rest[at + length..];
    }
    kept.extend_from_slice(rest);
    kept
}

/// Takes the first whole frame of a client: its first byte and its payload without the mask (RFC 6455 §5.2).
fn frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let short = usize::from(bytes.get(1)? & 0x7f);
    let (length, start) = match short {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())).unwrap(), 10),
        _ => (short, 2),
    };
    let mask: [u8; 4] = bytes.get(start..start + 4)?.try_into().unwrap();
    let end = start + 4 + length;
    let payload = bytes.get(start + 4..end)?;
    let plain = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let frame = std::iter::once(bytes[0]).chain(plain).collect();
    bytes.drain(..end);
    Some(frame)
}
