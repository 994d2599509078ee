//! Dials: the server's address, the token, and the transport.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use skirmish_core::rng::{Rng, Seed};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Uri};

use super::error::DialError;
use super::socket::{self, ClientSocket};

/// A boxed future, the return type of this module's traits.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A byte stream to a server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens byte streams to a server: the layer below the client. [`Tcp`] in production; wrapped by
/// the simulator and tests.
pub trait Dial: Send + Sync {
    /// Opens a stream to the target's host and port. TLS and WebSocket are added on top.
    fn dial(&self, target: &ServerAddress) -> BoxFuture<io::Result<Box<dyn Stream>>>;
}

/// Dials over TCP, without Nagle's delay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial(&self, target: &ServerAddress) -> BoxFuture<io::Result<Box<dyn Stream>>> {
        let address = target.address.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(&*address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    uri: Uri,
    address: Arc<str>,
    host: Arc<str>,
    tls: bool,
}

impl ServerAddress {
    /// Parses an address of the form `ws://host[:port]/path` or `wss://host[:port]/path`.
    ///
    /// # Errors
    /// [`DialError::Url`] if the text has another form.
    pub fn parse(url: &str) -> Result<Self, DialError> {
        let bad = || DialError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(bad()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let address = format!("{host}:{port}").into();
        let host = host.trim_start_matches('[').trim_end_matches(']').into();
        Ok(Self { uri, address, host, tls })
    }

    /// Returns `host:port`, to resolve and connect to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the host's name or address, as TLS checks it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns true for `wss://`.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }
}

type Provider = dyn Fn() -> BoxFuture<io::Result<String>> + Send + Sync;

/// Source of the token of each connection (row W1).
#[derive(Clone)]
pub struct Credentials(CredentialSource);

#[derive(Clone)]
enum CredentialSource {
    Fixed(Arc<str>),
    Provider(Arc<Provider>),
}

impl Credentials {
    /// Uses the same token for every connection. After its expiry, reconnecting fails.
    #[must_use]
    pub fn fixed(token: &str) -> Self {
        Self(CredentialSource::Fixed(token.into()))
    }

    /// Requests a token before every connection, so that an expired one is replaced. An error
    /// counts as a failed dial: the client backs off and requests a token again.
    pub fn provider<F, T>(provider: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = io::Result<String>> + Send + 'static,
    {
        Self(CredentialSource::Provider(Arc::new(move || Box::pin(provider()))))
    }
}

impl From<&str> for Credentials {
    fn from(token: &str) -> Self {
        Self::fixed(token)
    }
}

impl From<String> for Credentials {
    fn from(token: String) -> Self {
        Self::fixed(&token)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// All settings for opening a connection. Cheap to clone.
///
/// An endpoint may have several targets, the nodes of one cluster: each dial is to the next one.
#[derive(Clone)]
pub struct Endpoint {
    targets: Arc<[ServerAddress]>,
    /// Index of the first target; `None` for a random one.
    first: Option<usize>,
    credentials: Credentials,
    headers: Arc<[(HeaderName, HeaderValue)]>,
    dialer: Arc<dyn Dial>,
    #[cfg(not(madsim))]
    tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
    max_frame: usize,
}

impl Endpoint {
    /// Creates an endpoint that is dialled over TCP and, for `wss://`, over TLS with the system's
    /// trusted certificates. `max_frame` is the largest accepted WebSocket message, in bytes.
    ///
    /// # Errors
    /// [`DialError::Url`] if `url` is not an address.
    pub fn new(url: &str, credentials: impl Into<Credentials>, max_frame: usize) -> Result<Self, DialError> {
        Ok(Self {
            targets: Arc::new([ServerAddress::parse(url)?]),
            first: None,
            credentials: credentials.into(),
            headers: Arc::new([]),
            dialer: Arc::new(Tcp),
            #[cfg(not(madsim))]
            tls: None,
            max_frame,
        })
    }

    /// Adds the addresses of other nodes of the cluster.
    ///
    /// # Errors
    /// [`DialError::Url`] if one of them is not an address.
    pub fn with_nodes(mut self, urls: &[String]) -> Result<Self, DialError> {
        let others = urls.iter().map(|url| ServerAddress::parse(url)).collect::<Result<Vec<_>, _>>()?;
        self.targets = self.targets.iter().cloned().chain(others).collect();
        Ok(self)
    }

    /// Sets the index of the target that is dialled first.
    #[must_use]
    pub fn starting_at(mut self, first: usize) -> Self {
        self.first = Some(first % self.targets.len().max(1));
        self
    }

    /// Returns the index of the first target; random from the seed unless [`Self::starting_at`] was
    /// called.
    pub(super) fn first(&self, seed: Seed) -> usize {
        let last = self.targets.len().saturating_sub(1) as u64;
        let any = || usize::try_from(Rng::new(seed).range(0..=last)).unwrap_or(0);
        self.first.unwrap_or_else(any)
    }

    /// Sets another token.
    #[must_use]
    pub fn with_credentials(mut self, credentials: impl Into<Credentials>) -> Self {
        self.credentials = credentials.into();
        self
    }

    /// Sets another way to open streams.
    #[must_use]
    pub fn with_dialer(mut self, dialer: Arc<dyn Dial>) -> Self {
        self.dialer = dialer;
        self
    }

    /// Sets other TLS settings, such as a private authority's root.
    #[cfg(not(madsim))]
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<tokio_rustls::rustls::ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the headers that are added to each upgrade, such as `Origin` or `traceparent`.
    ///
    /// # Errors
    /// [`DialError::Header`] if HTTP does not allow a name or a value.
    pub fn with_headers(mut self, headers: &[(String, String)]) -> Result<Self, DialError> {
        let parse = |(name, value): &(String, String)| {
            let bad = || DialError::Header(name.clone());
            let key: HeaderName = name.parse().map_err(|_| bad())?;
            Ok((key, value.parse().map_err(|_| bad())?))
        };
        self.headers = headers.iter().map(parse).collect::<Result<_, DialError>>()?;
        Ok(self)
    }

    /// Dials the target with this number, modulo the number of targets, and upgrades to a
    /// WebSocket with the token in `X-Game-Token`.
    pub(super) fn open(&self, number: usize) -> BoxFuture<Result<ClientSocket, DialError>> {
        let this = self.clone();
        Box::pin(async move {
            let target = number.checked_rem(this.targets.len()).and_then(|place| this.targets.get(place));
            let target = target.ok_or_else(|| DialError::Url(String::new()))?;
            let token = match &this.credentials.0 {
                CredentialSource::Fixed(token) => HeaderValue::from_str(token),
                CredentialSource::Provider(provider) => {
                    HeaderValue::from_str(&provider().await.map_err(DialError::Token)?)
                }
            };
            let mut token = token.map_err(|_| DialError::Header("X-Game-Token".to_owned()))?;
            token.set_sensitive(true);
            let mut request = target.uri.clone().into_client_request()?;
            let headers = request.headers_mut();
            headers.insert("x-game-token", token);
            for (name, value) in this.headers.iter() {
                headers.insert(name, value.clone());
            }
            let stream = this.dialer.dial(target).await.map_err(DialError::Io)?;
            let stream = if target.tls { this.wrap(target, stream).await? } else { stream };
            let config = socket::config(this.max_frame);
            let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
            Ok(socket)
        })
    }

    #[cfg(not(madsim))]
    async fn wrap(
        &self,
        target: &ServerAddress,
        stream: Box<dyn Stream>,
    ) -> Result<Box<dyn Stream>, DialError> {
        use tokio_rustls::TlsConnector;
        use tokio_rustls::rustls::pki_types::ServerName;

        let tls = match &self.tls {
            Some(tls) => Arc::clone(tls),
            None => system_tls()?,
        };
        let name = ServerName::try_from(target.host.to_string())
            .map_err(|error| DialError::Tls(error.to_string()))?;
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(DialError::Io)?;
        Ok(Box::new(stream))
    }

    #[cfg(madsim)]
    #[allow(clippy::unused_async, reason = "the same signature as outside of the simulation")]
    async fn wrap(&self, _: &ServerAddress, _: Box<dyn Stream>) -> Result<Box<dyn Stream>, DialError> {
        Err(DialError::Tls("not in the simulation".to_owned()))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("targets", &self.targets).finish_non_exhaustive()
    }
}

/// Creates TLS settings that trust the system's certificates.
#[cfg(not(madsim))]
fn system_tls() -> Result<Arc<tokio_rustls::rustls::ClientConfig>, DialError> {
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(DialError::Tls("the system has no trusted certificates".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| DialError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_from_addresses() {
        let target = ServerAddress::parse("ws://127.0.0.1:7777/play?x=1").unwrap();
        assert_eq!(
            (target.address(), target.host(), target.is_tls()),
            ("127.0.0.1:7777", "127.0.0.1", false)
        );
        let target = ServerAddress::parse("wss://[::1]").unwrap();
        assert_eq!((target.address(), target.host(), target.is_tls()), ("[::1]:443", "::1", true));
        for bad in ["", "http://a/", "ws://", "127.0.0.1:7777", "ws://a b/"] {
            assert!(matches!(ServerAddress::parse(bad), Err(DialError::Url(_))), "{bad}");
        }
    }

    #[test]
    fn any_of_several_targets_is_the_first_unless_it_is_named() {
        let others = ["ws://b/".to_owned(), "ws://c/".to_owned()];
        let endpoint = Endpoint::new("ws://a/", "token", 1024).unwrap().with_nodes(&others).unwrap();
        let first = |seed: u8| endpoint.first([seed; 32]);
        let firsts: std::collections::BTreeSet<usize> = (0..50).map(first).collect();
        assert_eq!(firsts.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((first(7), endpoint.clone().starting_at(4).first([7; 32])), (first(7), 1));
        let bad = ["http://b/".to_owned()];
        assert!(matches!(endpoint.with_nodes(&bad), Err(DialError::Url(_))));
    }

    #[test]
    fn headers_that_http_forbids_are_refused() {
        let endpoint = Endpoint::new("ws://a/", "token", 1024).unwrap();
        let split = [("origin".to_owned(), "a\r\nb: c".to_owned())];
        assert!(matches!(endpoint.with_headers(&split), Err(DialError::Header(name)) if name == "origin"));
    }

    #[test]
    fn only_a_refusal_for_good_is_final() {
        assert!(DialError::Unauthorized.is_final());
        assert!(DialError::Forbidden.is_final());
        let retry_after = std::time::Duration::from_secs(1);
        assert!(!DialError::Unavailable { retry_after }.is_final());
        assert!(!DialError::TooFast { retry_after }.is_final());
        assert!(!DialError::Http(500).is_final());
    }
}
