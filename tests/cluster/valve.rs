//! TCP proxy with a changeable target that can cut connections, or silently hold back all bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// The proxy. Runs until the runtime ends.
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
    /// Starts a proxy without a target.
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

    /// Address of the proxy.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// URL for the client library.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/", self.0.address)
    }

    /// Sets the target of new connections.
    pub(crate) fn lead_to(&self, address: SocketAddr) {
        *self.0.to.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.0.cut.notify_waiters();
    }

    /// Holds back all bytes from now on, on old and new connections. New connections are still accepted.
    pub(crate) fn shut(&self) {
        self.0.open.send_replace(false);
    }

    /// Forwards all bytes again, including those held back.
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
        // The end of one direction drops all four halves, which cuts the connection.
        tokio::select! {
            biased;
            () = cut => {}
            () = self.pump(from_near, to_far) => {}
            () = self.pump(from_far, to_near) => {}
        }
    }

    /// Forwards one direction while the valve is open.
    async fn pump(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut open = self.0.open.subscribe();
        let mut buffer = vec![0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            // A shut valve does not report the end of a connection either.
            let opened = open.wait_for(|open| *open).await.is_ok();
            if !opened || to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
        let _ = open.wait_for(|open| *open).await;
    }
}
