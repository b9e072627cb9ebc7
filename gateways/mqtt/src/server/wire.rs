//! The bytes of one connection, encrypted or not. IO: the socket.

use std::io;
use std::time::Duration;
use tidegate_core::tls::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

/// How long the last bytes may take to leave, and how long the client may take to close its side.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where a client's bytes come from.
pub(super) type Reading = ReadHalf<Stream>;

/// Where bytes for a client go.
pub(super) struct Writing {
    half: WriteHalf<Stream>,
    buffered: bool,
    /// Something may wait in the encryption.
    unflushed: bool,
}

/// The two directions of a connection.
pub(super) fn split(stream: Stream) -> (Reading, Writing) {
    let buffered = stream.is_buffered();
    let (reading, half) = tokio::io::split(stream);
    (reading, Writing { half, buffered, unflushed: false })
}

impl Writing {
    /// Whether there is something to do while this waits to be sent.
    pub(super) const fn has_work(&self, output: &[u8]) -> bool {
        !output.is_empty() || self.unflushed
    }

    /// Sends a part of `output`, and says how much; where there is none, what waits in the encryption. Cancel-safe.
    pub(super) async fn send(&mut self, output: &[u8]) -> io::Result<usize> {
        if output.is_empty() {
            self.half.flush().await?;
            self.unflushed = false;
            return Ok(0);
        }
        let sent = self.half.write(output).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unflushed = self.buffered;
        Ok(sent)
    }
}

/// Sends what is left and closes. Reading on until the client closes (`wait`) keeps a reset from overtaking the last
/// packet.
pub(super) async fn farewell(reading: &mut Reading, writing: &mut Writing, output: &[u8], wait: bool) {
    let last = async {
        writing.half.write_all(output).await?;
        writing.half.shutdown().await?;
        if wait {
            let mut rest = [0; 1024];
            while reading.read(&mut rest).await? > 0 {}
        }
        io::Result::Ok(())
    };
    // whatever goes wrong now, the connection is over
    let _ = tokio::time::timeout(FAREWELL, last).await;
}
