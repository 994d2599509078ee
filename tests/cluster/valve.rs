//! A TCP proxy that can be led elsewhere, cut, and shut so that nothing passes and nobody
//! is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// The proxy. It forwards until the runtime ends.
#[derive(Clone, Debug)]
pub(crate) struct Valve(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    to: Mutex<Option<SocketAddr>>,
    open: watch::Sender<bool>,
    cut: Notify,
}

impl Valve {
    /// Starts a proxy that leads nowhere yet.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port is free");
        let valve = Self(Arc::new(Shared {
            address: listener.local_addr().expect("it is bound"),
            to: Mutex::new(None),
            open: watch::Sender::new(true),
            cut: Notify::new(),
        }));
        let this = valve.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move { this.forward(near).await });
            }
        });
        valve
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// For the client library.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/", self.0.address)
    }

    /// Leads new connections there.
    pub(crate) fn lead_to(&self, address: SocketAddr) {
        *self.0.to.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        self.0.cut.notify_waiters();
    }

    /// From now on nothing passes, on old connections and on new ones, which are taken.
    pub(crate) fn shut(&self) {
        self.0.open.send_replace(false);
    }

    /// Lets everything pass again, what waits included.
    pub(crate) fn open(&self) {
        self.0.open.send_replace(true);
    }

    async fn forward(&self, near: TcpStream) {
        let cut = self.0.cut.notified();
        let to = *self.0.to.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(to) = to else { return };
        let Ok(far) = TcpStream::connect(to).await else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (from_near, to_near) = tokio::io::split(near);
        let (from_far, to_far) = tokio::io::split(far);
        // When one of them ends, all four halves are dropped: the connection is cut.
        tokio::select! {
            biased;
            () = cut => {}
            () = self.pump(from_near, to_far) => {}
            () = self.pump(from_far, to_near) => {}
        }
    }

    /// Passes on what goes one way, while it is open.
    async fn pump(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut open = self.0.open.subscribe();
        let mut buffer = vec![0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            // Nobody hears of an end while it is shut, either.
            let opened = open.wait_for(|open| *open).await.is_ok();
            if !opened || to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
        let _ = open.wait_for(|open| *open).await;
    }
}
