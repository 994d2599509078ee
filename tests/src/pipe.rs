//! Proxy without knowledge of the protocol: forwards bytes, holds them back, or cuts connections.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Treatment of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Bytes are forwarded.
    Open,
    /// Bytes are held back, as on a dead link: nothing ends, nothing arrives.
    Held,
    /// Connections end, and new ones end at once.
    Cut,
}

/// The proxy. Runs until the runtime ends.
#[derive(Clone, Debug)]
pub struct Pipe {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
}

impl Pipe {
    /// Starts a proxy to a server.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port is free");
        let address = listener.local_addr().expect("it is bound");
        let mode = Arc::new(watch::channel(Mode::Open).0);
        let modes = mode.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server, modes.subscribe()));
            }
        });
        Self { address, mode }
    }

    /// URL for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds back all bytes in both directions, until [`Self::open`]. Connections are accepted, but stay
    /// silent.
    pub fn hold(&self) {
        self.mode.send_replace(Mode::Held);
    }

    /// Cuts all connections, also new ones, until [`Self::open`].
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Forwards all bytes again, including those held back.
    pub fn open(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

async fn forward(client: TcpStream, server: SocketAddr, mode: watch::Receiver<Mode>) {
    let mut cut = mode.clone();
    let both = async {
        if !opened(mode.clone()).await {
            return;
        }
        let Ok(server) = TcpStream::connect(server).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = tokio::io::split(client);
        let (from_server, to_server) = tokio::io::split(server);
        // The end of one direction drops all four halves, which cuts the connection.
        tokio::select! {
            biased;
            () = pump(from_client, to_server, mode.clone()) => {}
            () = pump(from_server, to_client, mode.clone()) => {}
        }
    };
    tokio::select! {
        biased;
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
        () = both => {}
    }
}

/// Forwards one direction while the pipe is open, until the direction ends.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mode: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if !opened(mode.clone()).await || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn opened(mut mode: watch::Receiver<Mode>) -> bool {
    mode.wait_for(|mode| *mode == Mode::Open).await.is_ok()
}
