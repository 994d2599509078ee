//! Connections to etcd: the choice of the endpoint, TLS and credentials, and the time of the next
//! attempt.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use skirmish_core::registry::Failure;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::outcome::{EtcdFailure, judge, text};
use crate::config::RegistryEtcd;
use crate::rounds::within;

/// Time without traffic after which the operating system probes an idle connection.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// The reason for which the options are unusable.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: std::io::Error,
    },
    /// An endpoint is no address, or TLS cannot be set up for it.
    #[error("endpoint `{endpoint}`: {why}")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// The problem.
        why: String,
    },
    /// There is no endpoint at all.
    #[error("no endpoint is configured")]
    NoEndpoint,
}

pub(super) type Dialing = Pin<Box<dyn Future<Output = Result<(Box<Client>, u64), EtcdDialError>> + Send>>;

/// Reason for a missing connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EtcdDialError {
    /// The registry's refusal, if the member answers and refuses the user or the password.
    pub(super) refusal: Option<Failure>,
    /// Text for people.
    pub(super) text: String,
}

impl EtcdDialError {
    fn new(text: &str) -> Self {
        Self { refusal: None, text: text.to_owned() }
    }
}

impl From<etcd_client::Error> for EtcdDialError {
    fn from(error: etcd_client::Error) -> Self {
        let refusal = match judge(&error) {
            EtcdFailure::Outcome(refused @ Failure::Refused(_)) => Some(refused),
            EtcdFailure::Outcome(Failure::Unavailable | Failure::Unknown) | EtcdFailure::NotDone => None,
        };
        Self { refusal, text: text(&error) }
    }
}

/// Opens connections, to one endpoint after the other.
pub(super) struct Dialer {
    endpoints: Vec<(String, Endpoint)>,
    options: ConnectOptions,
    has_user: bool,
    patience: Duration,
    next: usize,
}

impl Dialer {
    pub(super) fn new(options: &RegistryEtcd) -> Result<Self, OptionsError> {
        let tls = tls(options)?;
        let endpoints: Vec<_> =
            options.endpoints.iter().map(|name| endpoint(name, &tls, options)).collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(OptionsError::NoEndpoint);
        }
        // An expired token is renewed and the request is repeated. This is safe: etcd has refused
        // the request, so nothing is executed twice.
        let mut connect = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        if let Some(user) = &options.user {
            connect = connect.with_user(user, password(options)?);
        }
        let has_user = options.user.is_some();
        Ok(Self { endpoints, options: connect, has_user, patience: options.connect_timeout, next: 0 })
    }

    /// Returns true if a user is configured.
    pub(super) const fn has_user(&self) -> bool {
        self.has_user
    }

    /// Returns the number of endpoints.
    pub(super) const fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Dials the next endpoint. Returns the endpoint's name, for logs.
    pub(super) fn dial(&mut self) -> Option<(String, Dialing)> {
        let (name, endpoint) = self.endpoints.get(self.next % self.endpoints.len())?.clone();
        self.next = (self.next + 1) % self.endpoints.len();
        let (options, patience) = (self.options.clone(), self.patience);
        let dialing = async move {
            let connected = within(patience, connect(endpoint, options)).await;
            connected.unwrap_or_else(|_| Err(EtcdDialError::new("no answer within the time for connecting")))
        };
        Some((name, Box::pin(dialing)))
    }
}

/// Connects, authenticates, and checks that the member answers and has a leader: a port that
/// accepts connections is no proof.
async fn connect(endpoint: Endpoint, options: ConnectOptions) -> Result<(Box<Client>, u64), EtcdDialError> {
    let channel = endpoint.connect().await.map_err(etcd_client::Error::from)?;
    let client = Client::from_channel(Channel::Tonic(channel), Some(options)).await?;
    let status = client.maintenance_client().status().await?;
    if status.leader() == 0 {
        return Err(EtcdDialError::new("the member has no leader"));
    }
    if status.is_learner() {
        return Err(EtcdDialError::new("the member is a learner, which takes no requests: promote it"));
    }
    let cluster = status.header().map_or(0, |header| header.cluster_id());
    Ok((Box::new(client), cluster))
}

fn endpoint(
    name: &str,
    tls: &ClientTlsConfig,
    options: &RegistryEtcd,
) -> Result<(String, Endpoint), OptionsError> {
    let wrong = |why: String| OptionsError::Endpoint { endpoint: name.to_owned(), why };
    let mut endpoint = Endpoint::from_shared(name.to_owned())
        .map_err(|error| wrong(error.to_string()))?
        .connect_timeout(options.connect_timeout)
        .tcp_keepalive(Some(TCP_KEEP_ALIVE))
        .http2_keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout)
        // etcd treats pings on a connection without a request as an attack.
        .keep_alive_while_idle(false);
    if name.starts_with("https://") {
        endpoint = endpoint.tls_config(tls.clone()).map_err(|error| wrong(error.to_string()))?;
    }
    Ok((name.to_owned(), endpoint))
}

fn tls(options: &RegistryEtcd) -> Result<ClientTlsConfig, OptionsError> {
    let mut tls = match &options.ca_file {
        Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let (Some(certificate), Some(key)) = (&options.certificate_file, &options.key_file) {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

fn password(options: &RegistryEtcd) -> Result<String, OptionsError> {
    match &options.password_file {
        Some(file) => Ok(String::from_utf8_lossy(&read(file)?).trim().to_owned()),
        None => {
            Ok(options.password.as_ref().map_or_else(String::new, |password| password.expose().to_owned()))
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, OptionsError> {
    fs::read(path).map_err(|error| OptionsError::File { path: path.to_owned(), error })
}
