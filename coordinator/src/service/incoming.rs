//! Accepts connections, and continues when the process has no free file descriptors.

use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Pause after a failed accept, because the next attempt would fail immediately for the same reason.
const PAUSE: Duration = Duration::from_millis(200);

/// Returns the connections of a listener. A failed accept is repeated; the first failure of a series is
/// logged.
pub(super) fn connections(listener: TcpListener) -> ReceiverStream<io::Result<TcpStream>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut failed = false;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((connection, _)) => {
                    failed = false;
                    // Otherwise the end of a reply waits for the acknowledgement of its beginning, which a peer delays by
                    // 40 ms. The server's own option has no effect on connections that it does not accept itself. Fails
                    // only for a connection that has ended.
                    let _ = connection.set_nodelay(true);
                    if sender.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::error!(
                            "cannot accept connections ({error}): new ones wait until others have ended; where too many files \
                             are open, raise the limit (ulimit -Hn)"
                        );
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}
