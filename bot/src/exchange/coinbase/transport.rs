//! How bytes reach the exchange: TCP and TLS, or a pipe inside this process for tests that run bot and exchange in one
//! runtime on one virtual clock. What is said over it is the same.

use std::fmt;
use std::io;
use std::sync::Arc;

use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config, client_async_with_config,
};

use super::tls::causes;

/// Largest WebSocket message; a snapshot of a deep book has several million bytes.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A byte stream to the exchange.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A WebSocket after its handshake.
pub type Socket = WebSocketStream<MaybeTlsStream<Box<dyn Io>>>;

/// How bytes reach the exchange.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TCP and TLS; REST over HTTP/2.
    Network,
    /// Pipes; REST over HTTP/1.1, a connection for every request.
    InProcess(Dial),
}

type Open = dyn Fn(&str) -> io::Result<DuplexStream> + Send + Sync;

/// Opens pipes to an exchange in this process.
#[derive(Clone)]
pub struct Dial(Arc<Open>);

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

impl Dial {
    /// `open` is given `host` or `host:port` as in the URL, and returns our end of a new pipe whose other end the
    /// exchange serves.
    pub fn new(open: impl Fn(&str) -> io::Result<DuplexStream> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    pub(super) fn open(&self, authority: &str) -> io::Result<DuplexStream> {
        (self.0)(authority)
    }
}

/// `host` or `host:port`, as the JWT and the header Host name it.
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl Transport {
    /// Opens a WebSocket. The caller bounds the wait.
    ///
    /// # Errors
    /// There is no connection, and why.
    pub async fn web_socket(&self, url: &str, tls: &Arc<rustls::ClientConfig>) -> Result<Socket, String> {
        let address = Url::parse(url).map_err(|error| format!("{url} is not a URL: {error}"))?;
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let connected = match self {
            Self::Network => {
                if address.scheme() != "wss" {
                    return Err(format!("{url} is not a wss:// URL"));
                }
                let io = tcp(&address).await.map_err(|error| error.to_string())?;
                let connector = Some(Connector::Rustls(Arc::clone(tls)));
                client_async_tls_with_config(url, io, Some(config), connector).await
            }
            Self::InProcess(dial) => {
                let io: Box<dyn Io> = Box::new(dial.open(&authority(&address)).map_err(|error| error.to_string())?);
                client_async_with_config(url, MaybeTlsStream::Plain(io), Some(config)).await
            }
        };
        connected.map(|(socket, _)| socket).map_err(|error| causes(&error))
    }
}

async fn tcp(url: &Url) -> io::Result<Box<dyn Io>> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "the URL names no host");
    // An IPv6 address stands in brackets in a URL and nowhere else.
    let host = url.host_str().ok_or_else(missing)?.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(443);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}
