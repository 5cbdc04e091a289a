//! A network link for tests: forwards TCP connections at a limited rate, counts bytes, and breaks on demand.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes that are forwarded at once.
const PIECE: usize = 64 << 10;

/// A link to one address that exists until it is dropped.
#[derive(Debug)]
pub struct Link {
    address: String,
    state: Arc<State>,
    _open: DropGuard,
}

#[derive(Debug)]
struct State {
    target: String,
    /// Towards the target.
    up: Direction,
    /// From the target.
    down: Direction,
    /// The last fault, which affects the connections that exist at that time.
    faults: watch::Sender<Fault>,
}

/// A fault of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Connections end.
    Cut,
    /// Connections stay open, and no byte passes any more.
    Freeze,
}

/// One direction of the link, shared by its connections.
#[derive(Debug)]
struct Direction {
    bytes: AtomicU64,
    bytes_per_second: f64,
    /// Time at which the bytes so far have passed.
    free: Mutex<Instant>,
}

impl Direction {
    fn new(bytes_per_second: f64) -> Self {
        Self { bytes: AtomicU64::new(0), bytes_per_second, free: Mutex::new(Instant::now()) }
    }

    /// Waits until the link has room for `bytes` more.
    async fn pass(&self, bytes: usize) {
        let mut free = self.free.lock().await;
        *free = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let until = *free;
        drop(free);
        sleep_until(until).await;
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    async fn forward(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let read = from.read(&mut piece).await?;
            if read == 0 {
                return to.shutdown().await;
            }
            self.pass(read).await;
            to.write_all(&piece[..read]).await?;
        }
    }
}

impl Link {
    /// Opens a link to `target` (host:port) with this rate in each direction.
    pub async fn open(target: &str, bytes_per_second: f64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let state = Arc::new(State {
            target: target.to_owned(),
            up: Direction::new(bytes_per_second),
            down: Direction::new(bytes_per_second),
            faults: watch::Sender::new(Fault::Cut),
        });
        let (open, accepted) = (CancellationToken::new(), state.clone());
        let serving = open.clone();
        tokio::spawn(async move {
            let accept = async {
                while let Ok((connection, _)) = listener.accept().await {
                    tokio::spawn(accepted.clone().serve(connection));
                }
            };
            tokio::select! {
                () = accept => {}
                () = serving.cancelled() => {}
            }
            accepted.faults.send_replace(Fault::Cut);
        });
        Ok(Self { address, state, _open: open.drop_guard() })
    }

    /// host:port, for clients.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Bytes that have passed towards the target.
    pub fn up(&self) -> u64 {
        self.state.up.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that have passed from the target.
    pub fn down(&self) -> u64 {
        self.state.down.bytes.load(Ordering::Relaxed)
    }

    /// Ends all connections; new ones are possible at once.
    pub fn cut(&self) {
        self.state.faults.send_replace(Fault::Cut);
    }

    /// Makes all connections half-open: they stay, and no byte passes any more. New ones are possible at once.
    pub fn freeze(&self) {
        self.state.faults.send_replace(Fault::Freeze);
    }
}

impl State {
    /// Forwards a connection until it ends or the link breaks.
    async fn serve(self: Arc<Self>, client: TcpStream) {
        let mut faults = self.faults.subscribe();
        let Ok(server) = TcpStream::connect(&self.target).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((client_read, client_write), (server_read, server_write)) =
            (client.into_split(), server.into_split());
        let both = async {
            tokio::join!(
                self.up.forward(client_read, server_write),
                self.down.forward(server_read, client_write)
            )
        };
        tokio::pin!(both);
        tokio::select! {
            _ = &mut both => return,
            _ = faults.changed() => {}
        }
        // `both` owns the sockets, which stay open.
        let _ = faults.wait_for(|fault| *fault == Fault::Cut).await;
    }
}
